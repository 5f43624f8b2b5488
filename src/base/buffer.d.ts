// What is a Uint8Array by its type is a Buffer as often as not, whose `slice` is no copy but a view: of a link's
// receive buffer, say, which holds something else a moment later. So `slice` of both is marked here, and the linter
// refuses it: a survivor once announced whatever had come behind the addresses of its guest.

interface Uint8Array<TArrayBuffer extends ArrayBufferLike> {
  /** @deprecated Of a Buffer it is a view: `subarray` says so, `Uint8Array.from` or `Buffer.from` copies. */
  slice(start?: number, end?: number): Uint8Array<ArrayBuffer>;
}
