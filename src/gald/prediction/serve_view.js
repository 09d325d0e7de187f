// Script of the page of `gald serve`: colours, labels under the pointer, and buttons.
(() => {
  const scale = new Map(SCALE_COLOURS.map(([r, g, b], i) => [(r << 16) | (g << 8) | b, i]));
  const views = new WeakMap(); // figure -> {data, width, height} of its labels or values
  let opacity = 60;

  const read = async (source) => {
    const image = new Image();
    image.src = source;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  };

  const paint = (figure, labels) => {
    const canvas = figure.querySelector("canvas");
    const colours = JSON.parse(figure.dataset.colours);
    [canvas.width, canvas.height] = [labels.width, labels.height];
    const painted = new ImageData(labels.width, labels.height);
    for (let i = 0; i < labels.data.length; i += 4) {
      const [r, g, b] = colours[labels.data[i]] ?? [0, 0, 0];
      painted.data.set([r, g, b, 255], i);
    }
    canvas.getContext("2d").putImageData(painted, 0, 0);
    canvas.style.opacity = opacity / 100;
    figure.querySelector("input").value = opacity;
  };

  const prepare = async (figure) => {
    figure.dataset.ready = "no";
    const isMap = figure.classList.contains("gald-map");
    views.set(figure, await read(isMap ? figure.querySelector("img").src : figure.dataset.labels));
    if (!isMap) paint(figure, views.get(figure));
    figure.dataset.ready = "yes";
  };

  const value = (figure, pixels, offset) => {
    const [r, g, b] = pixels.data.subarray(offset, offset + 3);
    const share = (scale.get((r << 16) | (g << 8) | b) ?? 0) / 255;
    const [low, high] = [Number(figure.dataset.low), Number(figure.dataset.high)];
    return low + share * (high - low);
  };

  const describe = (figure, pixels, offset) => {
    if (figure.classList.contains("gald-map")) {
      const spread = Number(figure.dataset.high) - Number(figure.dataset.low);
      return value(figure, pixels, offset).toFixed(spread < 0.1 ? 3 : 2);
    }
    const name = JSON.parse(figure.dataset.names)[pixels.data[offset]] ?? "void";
    const map = document.querySelector("#confidence .gald-map");
    const known = map && views.get(map);
    if (known?.width !== pixels.width || known?.height !== pixels.height) return name;
    return `${name}, ${Math.round(100 * value(map, known, offset))}% sure`;
  };

  const hover = (event) => {
    const stack = event.target.closest?.(".gald-stack");
    for (const tip of document.querySelectorAll(".gald-tip")) {
      tip.hidden = tip.parentElement !== stack;
    }
    const figure = stack?.closest("figure");
    const pixels = figure && views.get(figure);
    if (!pixels) return;
    const box = stack.querySelector("img").getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const column = Math.min(pixels.width - 1, Math.floor((x / box.width) * pixels.width));
    const row = Math.min(pixels.height - 1, Math.floor((y / box.height) * pixels.height));
    const tip = stack.querySelector(".gald-tip");
    if (row < 0 || column < 0) {
      tip.hidden = true;
      return;
    }
    tip.textContent = describe(figure, pixels, 4 * (row * pixels.width + column));
    tip.style.left = `${Math.max(0, Math.min(x + 12, box.width - tip.offsetWidth))}px`;
    tip.style.top = `${y > box.height / 2 ? y - tip.offsetHeight - 8 : y + 16}px`;
  };

  const save = (figure) => {
    const [image, painted] = ["img", "canvas"].map((name) => figure.querySelector(name));
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [painted.width, painted.height];
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    context.globalAlpha = opacity / 100;
    context.drawImage(painted, 0, 0);
    const link = document.createElement("a");
    [link.download, link.href] = ["overlay.png", canvas.toDataURL("image/png")];
    link.click();
  };

  const press = (event) => {
    const button = event.target.closest?.(".gald-view [data-do]");
    const figure = button?.closest("figure");
    if (button?.dataset.do === "overlay") save(figure);
    if (button?.dataset.do === "full") {
      document.fullscreenElement ? document.exitFullscreen() : figure.requestFullscreen();
    }
  };

  const slide = (event) => {
    if (!event.target.matches?.(".gald-opacity input")) return;
    opacity = Number(event.target.value);
    event.target.closest("figure").querySelector("canvas").style.opacity = opacity / 100;
  };

  // Gradio's own buttons and inputs that show only an icon.
  const name = () => {
    for (const input of document.querySelectorAll("#image input[type=file]")) {
      input.setAttribute("aria-label", "Picture to segment");
    }
    for (const image of document.querySelectorAll("#image img:not([alt]), #image img[alt='']")) {
      image.alt = "The picture that you gave";
    }
    document.querySelectorAll("#examples button").forEach((button, i) => {
      const words = `Example picture ${i + 1}`;
      if (!button.ariaLabel) button.ariaLabel = words;
      button.querySelectorAll("img").forEach((image) => (image.alt = words));
    });
  };

  const look = () => {
    document.querySelectorAll("figure:is(.gald-view, .gald-map):not([data-ready])").forEach(prepare);
    name();
  };
  document.addEventListener("pointermove", hover);
  document.addEventListener("pointerdown", hover);
  document.addEventListener("click", press);
  document.addEventListener("input", slide);
  new MutationObserver(look).observe(document.documentElement, { childList: true, subtree: true });
})();
