import { signal } from "@preact/signals";

import { forgetAnswers, get, Refused, send, whenSignedOut, type SignedIn } from "./api";

/** undefined: not known yet; null: nobody is signed in. */
export const session = signal<SignedIn | null | undefined>(undefined);
export const unreached = signal(false);
export const ended = signal(false); // the sign-in ran out, or its key was revoked

whenSignedOut(() => {
  if (!session.value) return;
  session.value = null; // the page asks for a key, and what was not sent is kept
  ended.value = true;
});

export async function signIn(key: string): Promise<void> {
  if (!/^[ -~]+$/.test(key)) throw new Error("A key has ASCII characters only, and this has others. Copy it once more.");
  forgetAnswers();
  session.value = await send<SignedIn>("POST", "/session", { key });
  ended.value = false;
}

export async function signOut(): Promise<void> {
  await send("DELETE", "/session");
  forgetAnswers();
  session.value = null;
  ended.value = false;
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
