// The picture on the screen by WebGL 2: photo tiles as textures, grids as one 3-D texture, areas' masks as layers.
import { RETOUCH, SAMPLE, VERTEX } from './shaders.js';

const TILE = 2048, APRON = 4; // texels of a tile's side, and how far tiles reach over each other

/** The photo, retouched, in a canvas of its own. `draw` is all that a move of a slider costs. */
export class Slicer {
  /** Throws where there is no WebGL 2. `wide`: the screen shows Display P3 and the photo has it. */
  constructor(canvas, { wide = false, onrestore } = {}) {
    const options = { alpha: true, antialias: false, depth: false, preserveDrawingBuffer: false };
    const gl = canvas.getContext('webgl2', options);
    if (!gl || !gl.getExtension('EXT_color_buffer_float')) throw new Error('WebGL 2 is missing');
    this.canvas = canvas;
    this.gl = gl;
    this.wide = wide && 'drawingBufferColorSpace' in gl;
    if (this.wide) gl.drawingBufferColorSpace = 'display-p3';
    this.deep = !!gl.getExtension('OES_texture_float_linear');
    this.lost = false;
    canvas.addEventListener('webglcontextlost', (event) => { event.preventDefault(); this.lost = true; });
    canvas.addEventListener('webglcontextrestored', () => { this.lost = false; this._begin(); onrestore?.(); });
    this._begin();
  }

  _begin() {
    const gl = this.gl;
    gl.getExtension('EXT_color_buffer_float');
    gl.getExtension('OES_texture_float_linear');
    this.programs = new Map();
    const corners = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, corners);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.disable(gl.BLEND);
    this.tiles = { photo: [], other: [] };
    this.size = null;
    this.targets = {};
    this.look = { mode: 0, layers: 1, strength: 1, areas: [] };
    this.guide = null;
    this.grid = texture(gl, gl.TEXTURE_3D, gl.LINEAR);
    this.table = texture(gl, gl.TEXTURE_3D, gl.LINEAR);
    this.masks = texture(gl, gl.TEXTURE_2D_ARRAY, gl.LINEAR);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.RGBA16F, 1, 1, 1, 0, gl.RGBA, gl.FLOAT, null);
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.masks);
    gl.texImage3D(gl.TEXTURE_2D_ARRAY, 0, gl.R8, 1, 1, 1, 0, gl.RED, gl.UNSIGNED_BYTE, null);
    this.view = this.boxView = null; // those of the passes that are in the targets
    this.gridForm = this.kept = this.tableOf = null; // nothing is in the textures
  }

  /** The photo: `read(x, y, w, h)` gives RGBA bytes. `other`: a picture of the same size, retouched elsewhere. */
  setPhoto(source, name = 'photo') {
    const gl = this.gl;
    for (const tile of this.tiles[name]) gl.deleteTexture(tile.texture);
    this.tiles[name] = [];
    this.view = this.boxView = null;
    if (!source) return;
    if (name === 'photo') {
      this.size = [source.width, source.height];
      this.wide_photo = source.space === 'display-p3';
      this.alpha = !!source.alpha;
      this.bits = this.wide_photo ? 16 : source.bits ?? 8;
      this.setPhoto(null, 'other');
    }
    const most = Math.min(TILE, gl.getParameter(gl.MAX_TEXTURE_SIZE)), core = most - 2 * APRON;
    for (let top = 0; top < source.height; top += core) {
      for (let left = 0; left < source.width; left += core) {
        const x = Math.max(left - APRON, 0), y = Math.max(top - APRON, 0);
        const right = Math.min(left + core, source.width), bottom = Math.min(top + core, source.height);
        const w = Math.min(right + APRON, source.width) - x, h = Math.min(bottom + APRON, source.height) - y;
        const own = texture(gl, gl.TEXTURE_2D, gl.LINEAR, gl.LINEAR_MIPMAP_NEAREST);
        gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, w, h, 0, gl.RGBA, gl.UNSIGNED_BYTE, source.read(x, y, w, h));
        gl.generateMipmap(gl.TEXTURE_2D);
        this.tiles[name].push({ texture: own, x, y, w, h, core: [left, top, right, bottom] });
      }
    }
  }

  /** The guide's curve, see `/api/about`; null where the model has none. */
  setGuide(guide) {
    if (guide === this.guide) return;
    this.guide = guide;
    this.view = this.boxView = null;
    this.ramps = guide?.thresholds.flatMap((row, j) => row.flatMap((t, k) => [t, guide.slopes[j][k] / 3]));
  }

  /**
   * What is done to the photo: `mode` "photo", "grids" (`grids`: one of the whole photo and one of each area, `shape`
   * [12,D,gh,gw]; `shoulder`, or none), "other" or "table"; `strength`; `areas` [{kind, low, high, softness, invert, mask}].
   */
  setLook({ mode, grids, shape, shoulder, areas = [], strength = 1 }) {
    const gl = this.gl;
    this.look = { mode: { photo: 0, grids: 1, other: 2, table: 3 }[mode], strength, areas, layers: 1 };
    if (mode !== 'grids') return;
    const [, depth, height, width] = shape, plane = width * height;
    const data = new Float32Array(grids.length * 3 * depth * plane * 4);
    for (const [layer, grid] of grids.entries()) {
      for (let row = 0; row < 3; row++) {
        for (let input = 0; input < 4; input++) {
          const from = (row * 4 + input) * depth * plane, to = (layer * 3 + row) * depth * plane;
          const identity = row === input ? 1 : 0;
          for (let k = 0; k < depth * plane; k++) data[4 * (to + k) + input] = grid[from + k] - identity;
        }
      }
    }
    gl.bindTexture(gl.TEXTURE_3D, this.grid);
    const planes = depth * 3 * grids.length, kind = this.deep ? gl.RGBA32F : gl.RGBA16F, form = String([width, height, planes]);
    if (form === this.gridForm) {
      gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, 0, width, height, planes, gl.RGBA, gl.FLOAT, data);
    } else {
      gl.texImage3D(gl.TEXTURE_3D, 0, kind, width, height, planes, 0, gl.RGBA, gl.FLOAT, data);
      this.gridForm = form;
    }
    Object.assign(this.look, { layers: grids.length, depth, shoulder });
    let layer = 0;
    this.look.kinds = [];
    this.look.ranges = [];
    for (const area of areas) {
      const painted = area.kind === 'paint';
      this.look.kinds.push({ tone: 1, colour: 2 }[area.kind] ?? 0, area.invert ? 1 : 0, painted ? layer++ : 0, 0);
      this.look.ranges.push(area.low ?? 0, area.high ?? 0, area.softness ?? 0, 0);
    }
    this._setMasks(areas.filter((area) => area.kind === 'paint').map((area) => area.mask));
  }

  _setMasks(masks) {
    const gl = this.gl;
    if (!masks.length || (masks.length === this.kept?.length && masks.every((mask, i) => mask === this.kept[i]))) return;
    const { width, height } = masks[0];
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.masks);
    gl.texImage3D(gl.TEXTURE_2D_ARRAY, 0, gl.R8, width, height, masks.length, 0, gl.RED, gl.UNSIGNED_BYTE, null);
    for (const [i, mask] of masks.entries()) this.touchMask(i, mask);
    this.kept = masks;
  }

  /** A mask's bytes changed: those of a box, while it is painted. */
  touchMask(layer, mask, box = [0, 0, mask.width, mask.height]) {
    const gl = this.gl, [x, y, w, h] = box;
    if (w <= 0 || h <= 0) return;
    gl.bindTexture(gl.TEXTURE_2D_ARRAY, this.masks);
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, mask.width);
    gl.texSubImage3D(
      gl.TEXTURE_2D_ARRAY, 0, x, y, layer, w, h, 1, gl.RED, gl.UNSIGNED_BYTE, mask.data.subarray(y * mask.width + x),
    );
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, 0);
  }

  /** A colour table {size, data (blue, green, red order, RGB), low, high}. */
  setTable(table) {
    const gl = this.gl, { size, data } = table, rgba = new Float32Array(size ** 3 * 4);
    for (let i = 0; i < size ** 3; i++) rgba.set(data.subarray(3 * i, 3 * i + 3), 4 * i);
    gl.bindTexture(gl.TEXTURE_3D, this.table);
    gl.texImage3D(gl.TEXTURE_3D, 0, this.deep ? gl.RGBA32F : gl.RGBA16F, size, size, size, 0, gl.RGBA, gl.FLOAT, rgba);
    this.tableOf = table;
  }

  /**
   * Draw into the canvas. `view`: {x, y: the photo's pixel at the left upper corner, step: photo pixels per pixel};
   * `split`: plain photo left of this pixel; `clipping`; `overlay`: number of an area, or -1.
   */
  draw(view, { split = 0, clipping = false, overlay = -1 } = {}) {
    const gl = this.gl, { width, height } = this.canvas;
    if (this.lost || gl.isContextLost() || !this.size) return;
    const key = [view.x, view.y, view.step, width, height].join();
    if (this.view !== key) {
      this._sample('photo', 'photo', view, width, height);
      if (this.tiles.other.length) this._sample('other', 'other', view, width, height);
      if (this.alpha) this._sample('alpha', 'photo', view, width, height, true);
      this.view = key;
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    this._retouch('photo', 'other', view, width, height, { split, clipping, overlay, flip: true, wide: this.wide });
  }

  /** The retouched pixels of a box, RGBA bytes, sRGB (or the photo's Display P3 if `wide`). `look`: see `setLook`. */
  render(view, width, height, { plain = false, wide = false } = {}) {
    const gl = this.gl, key = [view.x, view.y, view.step, width, height].join();
    if (gl.isContextLost()) throw new Error('The browser lost its graphics processor: wait until the picture is back, or reload the page; nothing is lost.');
    if (this.boxView !== key) { // a histogram's is the same again and again
      this._sample('box', 'photo', view, width, height);
      if (this.tiles.other.length) this._sample('boxOther', 'other', view, width, height);
      if (this.alpha) this._sample('boxAlpha', 'photo', view, width, height, true);
      this.boxView = key;
    }
    const target = this._target('result', width, height, gl.RGBA8);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    this._retouch('box', 'boxOther', view, width, height, { split: plain ? 1e9 : 0, wide });
    const pixels = new Uint8ClampedArray(4 * width * height);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
    return pixels;
  }

  /** Wait until all is drawn: to measure how long it takes. */
  finish() {
    this.gl.readPixels(0, 0, 1, 1, this.gl.RGBA, this.gl.UNSIGNED_BYTE, new Uint8Array(4));
  }

  _sample(target, tiles, view, width, height, alpha = false) {
    const gl = this.gl, colour = tiles === 'photo' && !alpha, guide = colour ? this.guide : null, wide = this.wide_photo && colour;
    const p = this._program(SAMPLE, {
      ALPHA: alpha ? 1 : 0, SMALLER: view.step > 1 ? 1 : 0, WIDE: wide ? 1 : 0, KNOTS: guide ? guide.thresholds[0].length : 0,
    });
    const { frame } = this._target(target, width, height, gl.RGBA16F);
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.viewport(0, 0, width, height);
    gl.useProgram(p.program);
    gl.uniform4f(p.at('view'), view.x, view.y, view.step, 0);
    gl.uniform1i(p.at('tile'), 0);
    if (guide) {
      gl.uniformMatrix3fv(p.at('matrix'), false, guide.matrix.flat());
      gl.uniform3fv(p.at('matrix_bias'), guide.matrix_bias);
      gl.uniform1f(p.at('bias'), guide.bias);
      gl.uniform2fv(p.at('ramps'), this.ramps);
    }
    gl.activeTexture(gl.TEXTURE0);
    for (const tile of this.tiles[tiles]) {
      const [left, top, right, bottom] = tile.core;
      const x0 = Math.max(left === 0 ? -1e9 : (left - view.x) / view.step, 0);
      const y0 = Math.max(top === 0 ? -1e9 : (top - view.y) / view.step, 0);
      const x1 = Math.min(right === this.size[0] ? 1e9 : (right - view.x) / view.step, width);
      const y1 = Math.min(bottom === this.size[1] ? 1e9 : (bottom - view.y) / view.step, height);
      if (x1 <= x0 || y1 <= y0) continue;
      gl.bindTexture(gl.TEXTURE_2D, tile.texture);
      gl.uniform4f(p.at('tile_box'), tile.x, tile.y, tile.w, tile.h);
      gl.uniform4f(p.at('box'), x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    }
  }

  _retouch(photo, other, view, width, height, { split, clipping = false, overlay = -1, flip = false, wide = false }) {
    const gl = this.gl, look = this.look, mode = look.mode === 2 && !this.tiles.other.length ? 0 : look.mode;
    const p = this._program(RETOUCH, {
      MODE: mode, AREAS: mode === 1 ? look.layers - 1 : 0, EXTRAS: clipping || overlay >= 0 || wide ? 1 : 0, ALPHA: this.alpha ? 1 : 0,
    });
    gl.viewport(0, 0, width, height);
    gl.useProgram(p.program);
    const textures = [
      ['photo', gl.TEXTURE_2D, this.targets[photo].texture],
      ['other', gl.TEXTURE_2D, (this.targets[other] ?? this.targets[photo]).texture],
      ['grid', gl.TEXTURE_3D, this.grid], ['table', gl.TEXTURE_3D, this.table],
      ['masks', gl.TEXTURE_2D_ARRAY, this.masks],
      ...(this.alpha ? [['alphas', gl.TEXTURE_2D, this.targets[flip ? 'alpha' : 'boxAlpha'].texture]] : []),
    ];
    for (const [unit, [name, kind, own]] of textures.entries()) {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(kind, own);
      gl.uniform1i(p.at(name), unit);
    }
    gl.activeTexture(gl.TEXTURE0);
    gl.uniform4f(p.at('view'), view.x, view.y, view.step, height);
    gl.uniform1i(p.at('flip'), flip ? 1 : 0);
    gl.uniform2f(p.at('size'), ...this.size);
    gl.uniform1f(p.at('strength'), look.strength);
    gl.uniform1f(p.at('depth'), look.depth ?? 1);
    gl.uniform1f(p.at('shoulder'), look.shoulder ?? 0);
    if (mode === 1 && look.layers > 1) {
      gl.uniform1i(p.at('limits'), this.bits === 8 ? 1 : 0);
      gl.uniform4iv(p.at('kinds'), look.kinds);
      gl.uniform4fv(p.at('ranges'), look.ranges);
    }
    if (mode === 3) {
      gl.uniform3fv(p.at('table_low'), this.tableOf.low);
      gl.uniform3fv(p.at('table_high'), this.tableOf.high);
      gl.uniform1f(p.at('table_size'), this.tableOf.size);
    }
    gl.uniform1f(p.at('split'), split);
    gl.uniform1i(p.at('clipping'), clipping ? 1 : 0);
    gl.uniform1i(p.at('wide_screen'), wide ? 1 : 0);
    gl.uniform1i(p.at('overlay'), mode === 1 ? overlay : -1);
    gl.uniform4f(p.at('box'), 0, 0, 1, 1);
    gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
  }

  _program(text, values) {
    const defines = Object.entries(values).map(([name, value]) => `#define ${name} ${value}`).join('\n'), key = text.length + defines;
    if (!this.programs.has(key)) this.programs.set(key, program(this.gl, VERTEX, text.replace('\n', `\n${defines}\n`)));
    return this.programs.get(key);
  }

  _target(name, width, height, kind) {
    const gl = this.gl, known = this.targets[name];
    if (known && known.width === width && known.height === height) return known;
    if (known) {
      gl.deleteTexture(known.texture);
      gl.deleteFramebuffer(known.frame);
    }
    const own = texture(gl, gl.TEXTURE_2D, gl.NEAREST);
    gl.texStorage2D(gl.TEXTURE_2D, 1, kind, width, height);
    const frame = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, own, 0);
    return (this.targets[name] = { texture: own, frame, width, height });
  }
}

function texture(gl, kind, magnify, minify = magnify) {
  const own = gl.createTexture();
  gl.bindTexture(kind, own);
  gl.texParameteri(kind, gl.TEXTURE_MAG_FILTER, magnify);
  gl.texParameteri(kind, gl.TEXTURE_MIN_FILTER, minify);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) {
    gl.texParameteri(kind, side, gl.CLAMP_TO_EDGE);
  }
  return own;
}

function program(gl, vertex, fragment) {
  const own = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(own, shader);
  }
  gl.bindAttribLocation(own, 0, 'corner');
  gl.linkProgram(own);
  if (!gl.getProgramParameter(own, gl.LINK_STATUS) && !gl.isContextLost()) {
    const logs = gl.getAttachedShaders(own).map((shader) => gl.getShaderInfoLog(shader));
    throw new Error([gl.getProgramInfoLog(own), ...logs].join('\n'));
  }
  const places = new Map();
  const at = (name) => {
    if (!places.has(name)) places.set(name, gl.getUniformLocation(own, name));
    return places.get(name);
  };
  return { program: own, at };
}
