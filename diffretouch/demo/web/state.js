// The one state object, and what a look is: plain values that are replaced, never changed, so that undo is a list.

export const ATTRIBUTES = ['colorfulness', 'contrast', 'temperature', 'brightness'];
export const SLIDERS = {
  colorfulness: ['Colour', 'muted', 'vivid'],
  contrast: ['Contrast', 'soft', 'crisp'],
  temperature: ['Warmth', 'cooler', 'warmer'],
  brightness: ['Brightness', 'darker', 'brighter'],
};
export const RANGES = {
  'Bright tones': { kind: 'tone', low: 0.65, high: 1, softness: 0.15 },
  'Dark tones': { kind: 'tone', low: 0, high: 0.3, softness: 0.15 },
  'Reds and skin': { kind: 'colour', low: 340, high: 50, softness: 20 },
  Greens: { kind: 'colour', low: 70, high: 170, softness: 20 },
  'Blues, sky': { kind: 'colour', low: 190, high: 260, softness: 20 },
};

export const state = {
  engine: null,
  about: null,
  photos: [], // {id, name, blob, source, size, notes, edits, at, draft, fields}
  active: null, // the photo that is shown
  target: 'whole', // what the sliders are for: 'whole' or an area's id
  wide: false, // sliders beyond 1
  split: null, // the divider, 0 to 1 of the stage
  before: false, // B is held
  clipping: false,
  showOverlay: false, // the area that is chosen, in red
  painting: null, // {erase, size, hardness}
  copied: null, // a look
  moving: false, // a slider is in the hand
};

export function newEdit(model) {
  return { model, c: [0, 0, 0, 0], strength: 1, seed: 0, areas: [], table: null };
}

export const edit = (photo = state.active) => photo && (photo.draft ?? photo.edits[photo.at]);
export const areaOf = (id = state.target, own = edit()) => own?.areas.find((area) => area.id === id) ?? null;
export const targetC = () => areaOf()?.c ?? edit()?.c ?? [0, 0, 0, 0];
export const reach = () => ({ c: state.wide ? 3 : 1, strength: state.wide ? 2 : 1 });

/** The edit with new values of c for what the sliders are for. */
export function withC(own, id, c) {
  if (id === 'whole') return { ...own, c };
  return { ...own, areas: own.areas.map((area) => (area.id === id ? { ...area, c } : area)) };
}

export function withArea(own, id, change) {
  return { ...own, areas: own.areas.map((area) => (area.id === id ? { ...area, ...change } : area)) };
}

let last = 0;
export function newId() {
  last += 1;
  return `${Date.now().toString(36)}-${last.toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
}

/** What a copied look takes along: areas that were painted belong to their photo. */
export function portable(own) {
  return { ...own, areas: own.areas.filter((area) => area.kind !== 'paint') };
}

/** A look as settings that the command line reads: `--preset`. `model`: what `/api/about` says of it. */
export function toPreset(own, model) {
  const c = Object.fromEntries(ATTRIBUTES.map((name, i) => [name, own.c[i]]));
  const regions = own.areas.filter((area) => words(area)).map((area) => {
    const values = ATTRIBUTES.map((name, i) => `${name}=${area.c[i]}`).join(',');
    return `${words(area)}:${values}`;
  });
  const base = { ...model.settings };
  for (const [key, value] of Object.entries(base)) if (value === null) delete base[key];
  const said = { format: state.about.settings_format, ...base, strength: own.strength };
  if (model.steered) Object.assign(said, { c, seed: own.seed });
  if (regions.length) said.regions = regions;
  return said;
}

/** The area in the words of the command line; null for what it has no words for. */
export function words(area) {
  if (area.kind === 'paint' || area.invert || area.softness !== (area.kind === 'tone' ? 0.15 : 20)) return null;
  return `${area.kind === 'tone' ? 'luminosity' : 'colour'}=${area.low}-${area.high}`;
}

/** Settings -> {edit, notes}; throws one sentence. */
export function fromPreset(textOfFile, name, current) {
  let said;
  try {
    said = JSON.parse(textOfFile.replace(/^\ufeff/, ''));
  } catch {
    throw new Error(`${name} cannot be used as a preset: it is no JSON.`);
  }
  const refuse = (why) => { throw new Error(`${name} cannot be used as a preset: ${why}.`); };
  const known = state.about.settings_format;
  if (said === null || typeof said !== 'object' || !('format' in said)) refuse('it holds no settings');
  if (said.format !== known) {
    refuse(`it has settings of format ${JSON.stringify(said.format)}, this version knows ${known}`
      + (said.format > known ? ': a newer diffretouch wrote them' : ''));
  }
  const notes = [], own = { ...newEdit(current.model), seed: current.seed };
  const number = (value, low, high, what) => {
    if (typeof value !== 'number' || !(value >= low && value <= high)) refuse(`${what} must lie from ${low} to ${high}`);
    return value;
  };
  for (const [key, value] of Object.entries(said.c ?? {})) {
    if (!ATTRIBUTES.includes(key)) refuse(`it names ${key}, which is no slider`);
    own.c[ATTRIBUTES.indexOf(key)] = number(value, -3, 3, key);
  }
  if (said.strength != null) own.strength = number(said.strength, 0, 2, 'strength');
  if (said.seed != null) own.seed = Math.round(number(said.seed, 0, 2 ** 53 - 1, 'seed'));
  if (said.model != null) {
    const label = Object.keys(state.about.models).find((one) => state.about.models[one].name === said.model);
    if (label) own.model = label;
    else notes.push(`It was made with the model ${said.model}, which is not here: results differ.`);
  }
  if (said.exposure || said.white_balance) notes.push('It also changes exposure or white balance, which this page does not.');
  for (const region of said.regions ?? []) {
    const match = /^(luminosity|colou?r)=([\d.]+)-([\d.]+):(.*)$/.exec(String(region));
    if (!match) refuse('it has an area with a mask file, which is not opened from here: load the mask');
    const kind = match[1] === 'luminosity' ? 'tone' : 'colour', c = [...own.c];
    for (const part of match[4].split(',')) {
      const [key, value] = part.split('=').map((v) => v.trim());
      if (!ATTRIBUTES.includes(key)) refuse(`an area names ${key}, which is no slider`);
      c[ATTRIBUTES.indexOf(key)] = number(Number(value), -3, 3, key);
    }
    const range = { kind, low: Number(match[2]), high: Number(match[3]), softness: kind === 'tone' ? 0.15 : 20 };
    const title = Object.keys(RANGES).find((one) => RANGES[one].low === range.low && RANGES[one].high === range.high);
    own.areas.push({ id: newId(), name: title ?? `Area ${own.areas.length + 1}`, ...range, invert: false, c });
  }
  if (own.areas.length > state.about.limits.areas) refuse(`it has more than ${state.about.limits.areas} areas`);
  return { edit: own, notes };
}
