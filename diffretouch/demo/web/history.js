// Undo and redo, and their memory: photos, looks and masks lie in the browser's own IndexedDB, so that neither a reload
// nor a program that ended loses anything. A photo that is closed is forgotten; others after a week.
import { edit, state } from './state.js';

const MOST_STEPS = 200, KEPT_FOR = 7 * 24 * 3600 * 1000;

/** A new look of the photo that is not yet a step: a slider is in the hand. */
export function propose(photo, own) {
  photo.draft = own;
}

/** Make what was proposed, or `own`, a step that can be undone. */
export function commit(photo, own = photo.draft) {
  photo.draft = null;
  if (!own || same(own, photo.edits[photo.at])) return false;
  photo.edits = [...photo.edits.slice(Math.max(photo.at + 2 - MOST_STEPS, 0), photo.at + 1), own];
  photo.at = photo.edits.length - 1;
  remember(photo);
  return true;
}

/** One step back (-1) or on (+1); false where there is none. */
export function step(photo, by) {
  if (photo.draft) commit(photo);
  const at = photo.at + by;
  if (at < 0 || at >= photo.edits.length) return false;
  photo.at = at;
  remember(photo);
  return true;
}

export const canStep = (photo, by) => !!photo && photo.at + by >= 0 && photo.at + by < photo.edits.length;

function same(one, other) {
  const plain = (key, value) => (value instanceof Uint8Array ? undefined : value);
  return !!other && JSON.stringify(one, plain) === JSON.stringify(other, plain)
    && one.areas.every((area, i) => area.mask === other.areas[i]?.mask);
}

// What is kept: 'files' the photo as it came, 'looks' its steps, 'masks' by their number. One tab's photos go together

let database = null, failed = null, onfail = () => {};
const writing = new Map(); // photo's id -> timer
const tab = sessionStorage.getItem('diffretouch-tab') ?? crypto.randomUUID?.() ?? String(Math.random());

export async function beginMemory(whenFull) {
  onfail = whenFull;
  try {
    sessionStorage.setItem('diffretouch-tab', tab);
    navigator.locks?.request(`diffretouch-${tab}`, () => new Promise(() => {})); // as long as this tab lives
    database = await new Promise((done, fail) => {
      const asked = indexedDB.open('diffretouch', 1);
      asked.onupgradeneeded = () => ['files', 'looks', 'masks'].forEach((name) => asked.result.createObjectStore(name));
      asked.onsuccess = () => done(asked.result);
      asked.onerror = () => fail(asked.error);
    });
    database.onversionchange = () => database.close();
  } catch (error) {
    fail(error);
  }
}

function fail(error) {
  if (failed) return;
  failed = error;
  const full = error?.name === 'QuotaExceededError';
  onfail(full ? 'The browser has no room left: what you do from now on does not outlive a reload.'
    : 'The browser keeps nothing here: what you do does not outlive a reload.');
}

function transact(stores, mode, work) {
  if (!database) return Promise.resolve(null);
  return new Promise((done, bad) => {
    const transaction = database.transaction(stores, mode);
    let result;
    const got = work((name) => transaction.objectStore(name));
    if (got) got.onsuccess = () => { result = got.result; };
    transaction.oncomplete = () => done(result);
    transaction.onabort = transaction.onerror = () => bad(transaction.error);
  });
}

/** Keep a photo's file: once, when it is opened. */
export async function rememberFile(photo) {
  await transact(['files'], 'readwrite', (store) => store('files').put(photo.blob, photo.id)).catch(fail);
  remember(photo);
}

/** Keep a photo's steps, a moment after the last change. */
export function remember(photo) {
  clearTimeout(writing.get(photo.id));
  writing.set(photo.id, setTimeout(() => write(photo), 150));
}

async function write(photo) {
  writing.delete(photo.id);
  const fresh = [], plain = photo.edits.map((own) => ({
    ...own,
    areas: own.areas.map(({ mask, raw, ...area }) => {
      for (const one of [mask, raw]) if (one && !photo.keptMasks.has(one.id)) fresh.push(one);
      return { ...area, mask: mask?.id ?? null, raw: raw?.id ?? null };
    }),
  }));
  const { id, name, at } = photo, order = state.photos.indexOf(photo);
  if (order < 0) return;
  for (const mask of fresh) photo.keptMasks.add(mask.id);
  await transact(['looks', 'masks'], 'readwrite', (store) => {
    for (const mask of fresh) store('masks').put({ ...mask, photo: id }, mask.id);
    store('looks').put({ id, name, at, edits: plain, order, tab, active: state.active === photo, time: Date.now() }, id);
  }).catch(fail);
}

/** Write at once what still waits: the page is being left. */
export function flush() {
  for (const photo of state.photos) {
    if (photo.draft) commit(photo);
    if (writing.has(photo.id)) { clearTimeout(writing.get(photo.id)); write(photo); }
  }
}
addEventListener('visibilitychange', () => { if (document.hidden) flush(); });
addEventListener('pagehide', flush);

export async function forget(photo) {
  clearTimeout(writing.get(photo.id));
  await transact(['files', 'looks', 'masks'], 'readwrite', (store) => {
    store('files').delete(photo.id);
    store('looks').delete(photo.id);
    for (const mask of photo.keptMasks) store('masks').delete(mask);
  }).catch(fail);
}

/** What this tab had open; or, with `others`, what tabs that are gone had open: [{id, name, blob, edits, at, active}]. */
export async function recall(others = false) {
  const looks = (await transact(['looks'], 'readonly', (store) => store('looks').getAll()).catch(() => null)) ?? [];
  const alive = new Set((await navigator.locks?.query())?.held.map((lock) => lock.name) ?? []);
  const wanted = [];
  for (const look of looks) {
    if (look.tab === tab ? !others : others && !alive.has(`diffretouch-${look.tab}`)) {
      if (Date.now() - look.time > KEPT_FOR) await forget({ id: look.id, keptMasks: new Set(maskIds(look)) });
      else wanted.push(look);
    }
  }
  if (others && wanted.length) { // the newest tab alone
    const newest = wanted.reduce((a, b) => (a.time > b.time ? a : b)).tab;
    return wanted.filter((look) => look.tab === newest).sort((a, b) => a.order - b.order);
  }
  return wanted.sort((a, b) => a.order - b.order);
}

const maskIds = (look) => look.edits.flatMap((own) => own.areas.flatMap((area) => [area.mask, area.raw])).filter(Boolean);

/** A remembered look -> a photo of the state, or null where its file is gone. */
export async function revive(look) {
  const blob = await transact(['files'], 'readonly', (store) => store('files').get(look.id)).catch(() => null);
  if (!blob) return null;
  const masks = new Map();
  for (const id of new Set(maskIds(look))) {
    masks.set(id, await transact(['masks'], 'readonly', (store) => store('masks').get(id)).catch(() => null));
  }
  const edits = look.edits.map((own) => ({
    ...own,
    areas: own.areas.map((area) => ({ ...area, mask: masks.get(area.mask) ?? null, raw: masks.get(area.raw) ?? null }))
      .filter((area) => area.kind !== 'paint' || area.mask),
  }));
  return { id: look.id, name: look.name, blob, edits, at: look.at, draft: null, keptMasks: new Set(masks.keys()) };
}

export { edit };
