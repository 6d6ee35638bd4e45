// The names in a zip archive, as the directory at its end lists them: nothing is unpacked, and no more of the file is read.

const ENTRY = 0x02014b50; // signatures
const [END, END_64, LOCATOR_64] = [0x06054b50, 0x06064b50, 0x07064b50];
const LONGEST_END = 22 + 20 + 65_535; // with the locator before it, and a comment behind it
const MOST = 64 * 2 ** 20; // bytes of a directory that are read: some 600,000 names

/** Of its files, not of its folders; null where they cannot be told. */
export async function namesIn(file: Blob): Promise<string[] | null> {
  const from = Math.max(0, file.size - LONGEST_END);
  const tail = await bytes(file, from, file.size);
  let at = tail.byteLength - 22;
  while (at >= 0 && tail.getUint32(at, true) !== END) at -= 1;
  if (at < 0) return null;
  let [size, start] = [tail.getUint32(at + 12, true), tail.getUint32(at + 16, true)];
  if (at >= 20 && tail.getUint32(at - 20, true) === LOCATOR_64) {
    const place = Number(tail.getBigUint64(at - 12, true));
    const end = await bytes(file, place, place + 56);
    if (end.byteLength < 56 || end.getUint32(0, true) !== END_64) return null;
    [size, start] = [Number(end.getBigUint64(40, true)), Number(end.getBigUint64(48, true))];
  }
  return size > MOST ? null : listed(await bytes(file, start, start + size));
}

const bytes = async (file: Blob, from: number, to: number): Promise<DataView> => new DataView(await file.slice(from, to).arrayBuffer());

function listed(directory: DataView): string[] | null {
  const names: string[] = [];
  const decoder = new TextDecoder();
  for (let at = 0; at + 46 <= directory.byteLength; ) {
    if (directory.getUint32(at, true) !== ENTRY) return null;
    const length = directory.getUint16(at + 28, true);
    if (at + 46 + length > directory.byteLength) return null;
    const name = new Uint8Array(directory.buffer, at + 46, length);
    const utf8 = (directory.getUint16(at + 8, true) & 0x800) !== 0;
    if (!utf8 && name.some((byte) => byte > 127)) return null; // in one of many old encodings
    const text = decoder.decode(name);
    if (!text.endsWith("/")) names.push(text);
    at += 46 + length + directory.getUint16(at + 30, true) + directory.getUint16(at + 32, true);
  }
  return names;
}
