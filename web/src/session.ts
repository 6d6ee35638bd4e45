import { signal } from "@preact/signals";

import { forgetAnswers, get, Refused, send, whenSignedOut, type SignedIn } from "./api";

/** undefined: not known yet; null: nobody is signed in. */
export const session = signal<SignedIn | null | undefined>(undefined);
export const unreached = signal(false);

whenSignedOut(() => {
  if (session.value) session.value = null; // the page asks for a key, and what was not sent is kept
});

export async function signIn(key: string): Promise<void> {
  if (!/^[ -~]+$/.test(key)) throw new Error("A key has ASCII characters only, and this has others. Copy it once more.");
  forgetAnswers();
  session.value = await send<SignedIn>("POST", "/session", { key });
}

export async function signOut(): Promise<void> {
  await send("DELETE", "/session");
  forgetAnswers();
  session.value = null;
}

export async function whoIsIt(): Promise<void> {
  try {
    session.value = await get<SignedIn>("/session");
    unreached.value = false;
  } catch (error) {
    if (error instanceof Refused) session.value = null;
    else unreached.value = true;
  }
}

export const mayManage = () => session.value?.role === "admin";
export const mayRead = () => session.value?.role !== "annotator";
export const mayLabel = () => session.value?.role !== "reader";
