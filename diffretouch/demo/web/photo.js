// Photo files in the browser: decoded with their orientation and colours, and what a JPEG carries put into its retouch.

/** A photo's pixels as `slice.js` takes them: {width, height, space, alpha, read(x, y, w, h), image()}. */
export function bitmapSource(bitmap, space = 'srgb', alpha = false) {
  const { width, height } = bitmap;
  return {
    width, height, space, alpha,
    image: () => bitmap,
    read(x, y, w, h, colorSpace = space) {
      const context = new OffscreenCanvas(w, h).getContext('2d', { colorSpace, willReadFrequently: true });
      context.drawImage(bitmap, -x, -y);
      return context.getImageData(0, 0, w, h, { colorSpace }).data;
    },
  };
}

/** The same of rows of RGB or RGBA bytes. */
export function rgbSource({ width, height, rgb }) {
  const alpha = rgb.length === 4 * width * height, channels = alpha ? 4 : 3;
  let canvas = null;
  const read = (x, y, w, h) => {
    const out = new Uint8ClampedArray(4 * w * h);
    for (let row = 0, to = 0; row < h; row++) {
      let from = channels * ((y + row) * width + x);
      for (let column = 0; column < w; column++, to += 4, from += channels) {
        out[to] = rgb[from];
        out[to + 1] = rgb[from + 1];
        out[to + 2] = rgb[from + 2];
        out[to + 3] = alpha ? rgb[from + 3] : 255;
      }
    }
    return out;
  };
  const image = () => {
    if (!canvas) {
      canvas = new OffscreenCanvas(width, height);
      const context = canvas.getContext('2d');
      for (let y = 0; y < height; y += 512) {
        const h = Math.min(512, height - y);
        context.putImageData(new ImageData(read(0, y, width, h), width, h), 0, y);
      }
    }
    return canvas;
  };
  return { width, height, space: 'srgb', alpha, read, image };
}

/** Decode by the browser. Throws what it says where it cannot. */
export async function decode(blob) {
  const head = new Uint8Array(await blob.slice(0, 1 << 20).arrayBuffer());
  const space = isWide(head) ? 'display-p3' : 'srgb';
  return bitmapSource(await createImageBitmap(blob, { imageOrientation: 'from-image' }), space, hasAlpha(head));
}

function hasAlpha(bytes) { // PNG: kinds 4 and 6, or tRNS; WebP: by its header
  if (bytes[0] === 0x89) return [4, 6].includes(bytes[25]) || pngChunks(bytes).some(({ name }) => name === 'tRNS');
  if (text(bytes, 8, 4) !== 'WEBP') return false;
  return text(bytes, 12, 4) === 'VP8L' || (text(bytes, 12, 4) === 'VP8X' && (bytes[20] & 0x10) !== 0);
}

/** Whether browser and library read the very same pixels: plain JPEG and PNG, in sRGB or a profile of RGB. */
export async function isPlain(blob) {
  const bytes = new Uint8Array(await blob.slice(0, 1 << 20).arrayBuffer());
  if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    const frame = frameOf(bytes);
    return !!frame && frame[0] === 8 && frame[5] === 3;
  }
  if (bytes[0] !== 0x89 || bytes[1] !== 0x50) return false;
  const chunks = pngChunks(bytes), header = chunks.find((chunk) => chunk.name === 'IHDR')?.data;
  return !!header && header[8] === 8 && header[9] === 2 && !chunks.some(({ name }) => ['gAMA', 'cHRM', 'iCCP', 'cICP', 'tRNS', 'acTL'].includes(name));
}

/** {width, height} by the head of a JPEG, PNG or WebP, before anything is decoded; null of others. */
export async function sizeOf(blob) {
  const bytes = new Uint8Array(await blob.slice(0, 1 << 20).arrayBuffer()), view = new DataView(bytes.buffer);
  if (bytes[0] === 0xff && bytes[1] === 0xd8) {
    const frame = frameOf(bytes);
    return frame ? { width: (frame[3] << 8) | frame[4], height: (frame[1] << 8) | frame[2] } : null;
  }
  if (text(bytes, 1, 3) === 'PNG') return { width: view.getUint32(16), height: view.getUint32(20) };
  const kind = text(bytes, 8, 4) === 'WEBP' ? text(bytes, 12, 4) : '';
  if (kind === 'VP8X') return { width: 1 + (view.getUint32(24, true) & 0xffffff), height: 1 + (view.getUint32(27, true) & 0xffffff) };
  if (kind === 'VP8 ') return { width: view.getUint16(26, true) & 0x3fff, height: view.getUint16(28, true) & 0x3fff };
  if (kind === 'VP8L') return { width: 1 + (view.getUint32(21, true) & 0x3fff), height: 1 + ((view.getUint32(21, true) >> 14) & 0x3fff) };
  return null;
}

/** The frame header of a JPEG. */
function frameOf(bytes) {
  return segments(bytes).find(({ kind }) => kind >= 0xc0 && kind <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(kind))?.data;
}

// Red, green and blue of the spaces that a canvas knows, as profiles have them (XYZ under D50)
const SPACES = {
  srgb: [0.4360, 0.2225, 0.0139, 0.3851, 0.7169, 0.0971, 0.1431, 0.0606, 0.7141],
  'display-p3': [0.5151, 0.2412, -0.0011, 0.2920, 0.6922, 0.0419, 0.1571, 0.0666, 0.7841],
};

/** The space of a JPEG's profile: 'srgb', 'display-p3', 'other' (of RGB), or null where it has none of RGB. */
function spaceOf(bytes) {
  const profile = segments(bytes).find(({ kind, data }) => kind === 0xe2 && text(data, 0, 11) === 'ICC_PROFILE')?.data.subarray(14);
  if (!profile || text(profile, 16, 4) !== 'RGB ') return null;
  const view = new DataView(profile.buffer, profile.byteOffset, profile.length), tags = new Map();
  try {
    for (let i = 0; i < view.getUint32(128); i++) tags.set(text(profile, 132 + 12 * i, 4), view.getUint32(136 + 12 * i));
    const fixed = (at) => view.getInt32(at) / 65536;
    const primaries = ['rXYZ', 'gXYZ', 'bXYZ'].flatMap((name) => [8, 12, 16].map((from) => fixed(tags.get(name) + from)));
    const isCurve = Math.abs(middle(view, profile, tags.get('rTRC'), fixed) - 0.214) < 0.0015; // of sRGB, and of Display P3
    const known = Object.keys(SPACES).find((name) => SPACES[name].every((v, i) => Math.abs(v - primaries[i]) < 0.002));
    return (isCurve && known) || 'other';
  } catch { // tables instead, or tags in a later segment
    return 'other';
  }
}

/** A curve of a profile at 0.5. */
function middle(view, profile, at, fixed) {
  if (text(profile, at, 4) === 'para') {
    const kind = view.getUint16(at + 8), [g, a = 1, b = 0, , , e = 0] = Array.from({ length: [1, 3, 4, 5, 7][kind] }, (_, i) => fixed(at + 12 + 4 * i));
    return (a * 0.5 + b) ** g + (kind === 4 ? e : 0);
  }
  const count = view.getUint32(at + 8);
  if (count < 2) return 0.5 ** (count ? view.getUint16(at + 12) / 256 : 1);
  const place = (count - 1) / 2, value = (i) => view.getUint16(at + 12 + 2 * i) / 65535;
  return (value(Math.floor(place)) + value(Math.ceil(place))) / 2;
}

function isWide(bytes) {
  return bytes[0] === 0xff && ['display-p3', 'other'].includes(spaceOf(bytes));
}

const text = (bytes, from, length) => String.fromCharCode(...bytes.subarray(from, from + length));

/** The segments of a JPEG before its picture: [{kind, data, start, end}]; what is broken ends the list. */
export function segments(bytes) {
  const found = [];
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff;) {
    const kind = bytes[at + 1], length = (bytes[at + 2] << 8) | bytes[at + 3], end = at + 2 + length;
    if (kind === 0xff) { at += 1; continue; }
    if (kind === 0xda || kind === 0xd9 || length < 2 || end > bytes.length) break;
    found.push({ kind, data: bytes.subarray(at + 4, end), start: at, end });
    at = end;
  }
  return found;
}

function pngChunks(bytes) {
  const found = [], view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 8; at + 12 <= bytes.length;) {
    const length = view.getUint32(at), name = text(bytes, at + 4, 4);
    if (name === 'IDAT') break;
    found.push({ name, data: bytes.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  return found;
}

/** A new JPEG with the EXIF, XMP, IPTC and comments of the photo it was made of, and its profile where that is the one
 * of `space`, in which the new pixels are: {blob, notes}. */
export async function carryJpeg(result, original, space) {
  const source = new Uint8Array(await original.arrayBuffer()), made = new Uint8Array(await result.arrayBuffer());
  if (source[0] !== 0xff || source[1] !== 0xd8 || made[1] !== 0xd8) return { blob: result, notes: [] };
  const notes = [], profile = spaceOf(source) === space;
  const kept = segments(source).filter(({ kind, data }) => {
    if (kind === 0xe1 && text(data, 0, 29) === XMP && isOfGainMap(data)) { // of a second picture, which is not in the new file
      notes.push('The browser keeps no HDR rendition: the file has the usual range.');
      return false;
    }
    if (kind === 0xe1) return text(data, 0, 4) === 'Exif' || [XMP, XMP_MORE].some((name) => text(data, 0, name.length) === name);
    if (kind === 0xe2) return profile && text(data, 0, 11) === 'ICC_PROFILE';
    return kind === 0xed || kind === 0xfe;
  });
  const parts = [made.slice(0, 2)];
  for (const { kind, start, end } of kept) {
    const copy = source.slice(start, end);
    if (kind === 0xe1 && text(copy, 4, 4) === 'Exif') uprightExif(copy.subarray(10));
    else if (kind === 0xe1) uprightXmp(copy);
    parts.push(copy);
  }
  const own = segments(made), carried = kept.some(({ kind }) => kind === 0xe2);
  const rest = own.find(({ kind }) => kind < 0xe0 || kind > 0xef)?.start ?? 2;
  for (const { kind, start, end } of own) { // the encoder's own JFIF and, where none is carried, its profile
    if (start < rest && (kind === 0xe0 || (kind === 0xe2 && !carried))) parts.push(made.slice(start, end));
  }
  return { blob: new Blob([...parts, made.slice(rest)], { type: 'image/jpeg' }), notes };
}

const XMP = 'http://ns.adobe.com/xap/1.0/\0', XMP_MORE = 'http://ns.adobe.com/xmp/extension/\0';
const latin = (bytes) => new TextDecoder('latin1').decode(bytes);
const isOfGainMap = (bytes) => latin(bytes).includes('/hdr-gain-map/');

/** `tiff:Orientation` 1, as element or attribute: in place, of the same length. */
function uprightXmp(bytes) {
  for (const { index, 0: found } of latin(bytes).matchAll(/tiff:Orientation(?:=["']|>)[2-8]/g)) bytes[index + found.length - 1] = 0x31;
}

/** Orientation 1 in a TIFF structure, and no thumbnail of the photo before: in place. */
function uprightExif(tiff) {
  if (tiff.length < 14) return;
  const view = new DataView(tiff.buffer, tiff.byteOffset, tiff.length), little = tiff[0] === 0x49;
  const first = view.getUint32(4, little);
  if (first + 2 > tiff.length) return;
  const count = view.getUint16(first, little), end = first + 2 + 12 * count;
  if (end + 4 > tiff.length) return;
  for (let at = first + 2; at < end; at += 12) {
    if (view.getUint16(at, little) === 0x0112) view.setUint16(at + 8, 1, little);
  }
  view.setUint32(end, 0, little);
}

/** The largest JPEG inside a RAW or HEIC file, as a Blob, or null: what a camera shows on its own screen. */
export async function embeddedPreview(blob) {
  const bytes = new Uint8Array(await blob.slice(0, 64 << 20).arrayBuffer());
  let best = null, tried = 0;
  for (let at = 4; at + 4 < bytes.length && tried < 12; at++) {
    if (bytes[at] !== 0xff || bytes[at + 1] !== 0xd8 || bytes[at + 2] !== 0xff) continue;
    tried += 1;
    const frame = segments(bytes.subarray(at)).find(({ kind }) => kind === 0xc0 || kind === 0xc2);
    if (!frame) continue;
    const size = ((frame.data[1] << 8) | frame.data[2]) * ((frame.data[3] << 8) | frame.data[4]);
    if (!best || size > best.size) best = { size, at };
  }
  if (!best) return null;
  const preview = blob.slice(best.at, blob.size, 'image/jpeg'); // decoders stop where the JPEG ends
  return (await createImageBitmap(preview).catch(() => null)) ? preview : null;
}
