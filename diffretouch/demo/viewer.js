// The viewer: photo before and after, brush, messages. What is sent carries a number that rises with every move; a
// picture is shown only if no later one is on the screen. `diffretouch.move`, `.now` and `.task` stand before events.
const find = (selector) => element.querySelector(selector);
const viewer = find('.viewer'), stage = find('.stage'), frame = find('.frame'), after = find('.after');
const before = find('.before'), compare = find('.compare'), canvas = find('.mask'), busy = find('.busy');
const message = find('.message');
let latest = 0, shown = -1, shownFinal = false, restTimer = 0, busyTimer = 0, tasks = 0, natural = null, painting = null;

function waiting() {
  return shown < latest || tasks > 0;
}

function setBusy(label) {
  clearTimeout(busyTimer);
  busyTimer = setTimeout(() => {
    if (!waiting() && !label.always) return;
    busy.querySelector('span').textContent = label.text || 'Working';
    busy.hidden = false;
  }, 400);
}

function calm() {
  if (waiting()) return;
  clearTimeout(busyTimer);
  busy.hidden = true;
}

function tell(text, isError) {
  message.hidden = !text;
  message.classList.toggle('error', !!isError);
  message.querySelector('span').textContent = text || '';
}

window.diffretouch = {
  // Before an event that changes the picture: a new number
  move: (args, text) => {
    clearTimeout(restTimer);
    args[0] = ++latest;
    setBusy({ text });
    return args;
  },
  // Before an event that makes the same picture better
  now: (args) => {
    args[0] = latest;
    clearTimeout(busyTimer);
    busyTimer = setTimeout(() => {
      if (shownFinal) return;
      busy.querySelector('span').textContent = 'Refining';
      busy.hidden = false;
    }, 400);
    return args;
  },
  // Before an event that makes a file
  task: (args, text) => {
    args[0] = latest;
    tasks += 1;
    setBusy({ text });
    tell('');
    return args;
  },
};

async function show(value) {
  if (!value) return;
  if (value.done) tasks = Math.max(tasks - 1, 0);
  if (value.tell !== undefined) tell(value.tell, value.error);
  if (value.closed) leave();
  if (value.nothing) tell('');
  if (value.after) {
    const fresh = new Image();
    fresh.alt = value.alt;
    fresh.src = value.after;
    const loads = [fresh.decode()];
    if (value.before) {
      before.src = value.before;
      before.alt = 'The photo before retouching: ' + value.name;
      loads.push(before.decode());
    }
    try { await Promise.all(loads); } catch { return; }
    const better = value.move > shown || (value.move === shown && (value.final || !shownFinal));
    if (better) {
      after.replaceChildren(fresh);
      if (value.before) arrive(value, fresh);
      document.querySelector('#histogram .place').innerHTML = value.histogram;
      if (value.measured) document.querySelector('#histogram .numbers').innerHTML = value.measured;
      shown = value.move;
      shownFinal = value.final;
      viewer.dataset.shown = shown;
      viewer.dataset.final = value.final ? 1 : 0;
    }
  } else if ((value.error || value.nothing) && value.move !== undefined && value.move >= shown) {
    shown = value.move;
    shownFinal = true;
  }
  if (shown === latest && !shownFinal && value.after) {
    clearTimeout(restTimer);
    restTimer = setTimeout(() => trigger('rest'), 250);
  }
  if (value.paint !== undefined) value.paint ? startPainting(value.paint) : stopPainting();
  if (shownFinal || shown === latest) calm();
  viewer.dataset.answered = value.move ?? viewer.dataset.answered;
}

function arrive(value, picture) {
  natural = [picture.naturalWidth, picture.naturalHeight];
  viewer.dataset.state = 'photo';
  find('.empty').hidden = true;
  frame.hidden = false;
  find('.compare-tools').hidden = false;
  find('.compare-tools .name').textContent = value.name + ', ' + value.size;
  stopPainting();
  split(50);
  fit();
}

function leave() {
  latest += 1;
  shown = latest;
  shownFinal = true;
  clearTimeout(restTimer);
  natural = null;
  stopPainting();
  viewer.dataset.state = 'empty';
  after.replaceChildren();
  for (const place of document.querySelectorAll('#histogram .place, #histogram .numbers')) place.replaceChildren();
  before.removeAttribute('src');
  find('.empty').hidden = false;
  frame.hidden = true;
  find('.compare-tools').hidden = true;
}

// The picture fills the stage; small ones are enlarged, but not beyond recognition
function fit() {
  if (!natural) return;
  const room = [stage.clientWidth, stage.clientHeight];
  const scale = Math.min(room[0] / natural[0], room[1] / natural[1], Math.max(3, 96 / Math.max(...natural)));
  frame.style.width = Math.max(Math.round(natural[0] * scale), 1) + 'px';
  frame.style.height = Math.max(Math.round(natural[1] * scale), 1) + 'px';
}
new ResizeObserver(fit).observe(stage);

function split(percent) {
  compare.value = percent;
  frame.style.setProperty('--split', percent + '%');
  find('.handle').hidden = Number(percent) === 0 || Number(percent) === 100;
  find('.tag.left').hidden = Number(percent) === 0;
  find('.tag.right').hidden = Number(percent) === 100;
  compare.setAttribute('aria-valuetext', Math.round(percent) + ' % before');
  for (const button of element.querySelectorAll('[data-view]')) {
    button.setAttribute('aria-pressed', Number(button.dataset.view) === Number(percent));
  }
}
compare.addEventListener('input', () => split(compare.value));
for (const button of element.querySelectorAll('[data-view]')) {
  button.addEventListener('click', () => split(button.dataset.view));
}
let held = null;
const typing = (target) => target.matches('input:not([type=range]), textarea, select, [contenteditable]');
document.addEventListener('keydown', (event) => {
  if (event.key !== 'b' || event.repeat || typing(event.target) || event.ctrlKey || event.metaKey) return;
  held = compare.value;
  split(100);
});
document.addEventListener('keyup', (event) => {
  if (event.key === 'b' && held !== null) { split(held); held = null; }
});
// Gradio tells of a slider's reset only as a change, as of values that come from the server: tell it as a move.
// A double click on a slider resets it, too
document.addEventListener('click', (event) => {
  const button = event.target.closest('.attribute .reset-button');
  if (!button) return;
  const range = button.closest('.attribute').querySelector('input[type=range]');
  setTimeout(() => range.dispatchEvent(new Event('input', { bubbles: true })), 50);
});
document.addEventListener('dblclick', (event) => {
  if (event.target.matches('.attribute input[type=range]')) {
    event.target.closest('.attribute').querySelector('.reset-button').click();
  }
});
message.querySelector('button').addEventListener('click', () => tell(''));

// Opening: a button, a sample, or a drop anywhere on the page; the upload itself is the upload button's
const upload_input = () => document.querySelector('#head input[type=file]');
find('.open').addEventListener('click', () => upload_input().click());
// Made here and not in the template, which Gradio compiles anew for every picture
for (const sample of props.samples) {
  const button = document.createElement('button'), picture = new Image();
  button.type = 'button';
  button.dataset.sample = sample.name;
  picture.src = sample.src;
  picture.alt = sample.alt;
  button.append(picture);
  button.addEventListener('click', () => trigger('sample', { name: sample.name }));
  find('.samples').append(button);
}
find('.close').addEventListener('click', () => trigger('leave'));
document.addEventListener('dragover', (event) => {
  event.preventDefault();
  viewer.classList.add('over');
});
document.addEventListener('dragleave', (event) => { if (!event.relatedTarget) viewer.classList.remove('over'); });
document.addEventListener('drop', (event) => {
  event.preventDefault();
  viewer.classList.remove('over');
  if (!event.dataTransfer.files.length) return;
  const input = upload_input();
  input.files = event.dataTransfer.files;
  input.dispatchEvent(new Event('change', { bubbles: true }));
});
// Before anything is sent: a file that is too large would be refused only after it has travelled
document.addEventListener('change', (event) => {
  const input = event.target;
  if (input.type !== 'file' || !input.files || !input.files.length) return;
  const file = input.files[0], limit = props.max_mb * 1e6;
  if (file.size > limit) {
    event.stopImmediatePropagation();
    event.preventDefault();
    input.value = '';
    tell(file.name + ' has ' + Math.round(file.size / 1e6) + ' MB; the most is ' + props.max_mb + ' MB.', true);
  } else {
    tell('');
    setBusy({ text: 'Reading the file', always: true });
    setTimeout(() => { input.value = ''; });  // so that the same file can be chosen again
  }
}, true);

// Painting: strokes of round soft stamps; what is sent when a stroke ends is grey, white inside
const pen = canvas.getContext('2d', { willReadFrequently: true });
let erasing = false, last = null;

async function startPainting(area) {
  painting = area.name;
  canvas.width = natural[0];
  canvas.height = natural[1];
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (area.mask) {
    const mask = new Image();
    mask.src = area.mask;
    await mask.decode();
    pen.drawImage(mask, 0, 0, canvas.width, canvas.height);
    const pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 0; i < pixels.data.length; i += 4) {
      pixels.data[i + 3] = pixels.data[i];
      pixels.data.set([255, 60, 60], i);
    }
    pen.putImageData(pixels, 0, 0);
  }
  canvas.hidden = false;
  compare.hidden = true;
  find('.paint-tools').hidden = false;
  find('.compare-tools').hidden = true;
  find('.paint-tools .name').textContent = 'Paint where ' + area.name + ' is';
  split(0);
}

function stopPainting() {
  painting = null;
  canvas.hidden = true;
  compare.hidden = false;
  find('.paint-tools').hidden = true;
  find('.compare-tools').hidden = viewer.dataset.state !== 'photo';
}

function place(event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) * canvas.width / box.width, (event.clientY - box.top) * canvas.height / box.height];
}

function stamp(x, y) {
  const radius = Math.max((Number(find('.brush').value) / 100) ** 2 * Math.max(...natural) / 2.5, 2);
  const soft = pen.createRadialGradient(x, y, 0, x, y, radius);
  soft.addColorStop(0, 'rgba(255,60,60,1)');
  soft.addColorStop(0.6, 'rgba(255,60,60,0.8)');
  soft.addColorStop(1, 'rgba(255,60,60,0)');
  pen.globalCompositeOperation = erasing ? 'destination-out' : 'source-over';
  pen.fillStyle = soft;
  pen.beginPath();
  pen.arc(x, y, radius, 0, 7);
  pen.fill();
  return radius;
}

function stroke(to) {
  const from = last || to, far = Math.hypot(to[0] - from[0], to[1] - from[1]);
  const radius = stamp(...from), steps = Math.ceil(far / Math.max(radius / 3, 1));
  for (let i = 1; i <= steps; i++) stamp(from[0] + (to[0] - from[0]) * i / steps, from[1] + (to[1] - from[1]) * i / steps);
  last = to;
}

function sendMask() {
  const grey = document.createElement('canvas'), pixels = pen.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const inside = pixels.data[i + 3];
    pixels.data.set([inside, inside, inside, 255], i);
  }
  grey.width = canvas.width;
  grey.height = canvas.height;
  grey.getContext('2d').putImageData(pixels, 0, 0);
  trigger('painted', { name: painting, mask: grey.toDataURL('image/png') });
}

canvas.addEventListener('pointerdown', (event) => {
  canvas.setPointerCapture(event.pointerId);
  last = null;
  stroke(place(event));
});
canvas.addEventListener('pointermove', (event) => { if (last) stroke(place(event)); });
for (const end of ['pointerup', 'pointercancel']) {
  canvas.addEventListener(end, () => { if (last) { last = null; sendMask(); } });
}
find('.erase').addEventListener('click', (event) => {
  erasing = !erasing;
  event.target.setAttribute('aria-pressed', erasing);
});
find('.clear').addEventListener('click', () => {
  pen.clearRect(0, 0, canvas.width, canvas.height);
  sendMask();
});
find('.done').addEventListener('click', stopPainting);

window.diffretouch.show = show;
watch('value', () => { show(props.value); });
