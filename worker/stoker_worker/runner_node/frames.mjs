// Frames between the daemon and an app's process: four bytes of length (big-endian), then that many of JSON.
// Sans-IO, and the same as runner/frames.py.

export const MAX_FRAME_BYTES = 64 * 1024 * 1024;

export class FrameTooLarge extends Error {}

/** One frame of a JSON text. */
export function pack(text) {
  const payload = Buffer.from(text);
  if (payload.length > MAX_FRAME_BYTES) {
    throw new FrameTooLarge(`a message of ${payload.length} bytes; at most ${MAX_FRAME_BYTES} are possible`);
  }
  const header = Buffer.alloc(4);
  header.writeUInt32BE(payload.length);
  return Buffer.concat([header, payload]);
}

/** Collects bytes and gives back whole payloads. */
export class Decoder {
  #chunks = [];
  #size = 0;

  feed(data) {
    this.#chunks.push(data);
    this.#size += data.length;
  }

  /** The next whole payload as text, or null when more bytes are needed. */
  next() {
    if (this.#size < 4) return null;
    let all = this.#joined();
    const length = all.readUInt32BE(0);
    if (length > MAX_FRAME_BYTES) {
      throw new FrameTooLarge(`a message of ${length} bytes; at most ${MAX_FRAME_BYTES} are possible`);
    }
    if (this.#size < 4 + length) return null;
    const payload = all.toString("utf8", 4, 4 + length);
    all = all.subarray(4 + length);
    this.#chunks = all.length ? [all] : [];
    this.#size = all.length;
    return payload;
  }

  #joined() {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks, this.#size)];
    return this.#chunks[0];
  }
}
