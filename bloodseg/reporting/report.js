// Sorting and filtering of the table of images, and the viewer: pan and zoom over a photo and the
// outlines of its cells. Nothing is loaded; without JavaScript the page shows all the same.
"use strict";
{
  const rows = [...document.querySelectorAll("#images tbody tr")];
  const figures = [...document.querySelectorAll(".smears figure")];
  const shown = (element) => !element.hidden;

  // ---- the table

  const headers = [...document.querySelectorAll("#images thead th")];
  const valueOf = (row, column) => {
    const cell = row.cells[column];
    if (column === 0) return (cell.querySelector("a") || cell).textContent;
    const number = parseFloat(cell.textContent.replace(/,/g, ""));
    return Number.isNaN(number) ? null : number;
  };
  const compare = (one, other) =>
    typeof one === "string"
      ? one.localeCompare(other, undefined, { numeric: true })
      : one - other;

  headers.forEach((header, column) => {
    header.querySelector("button").addEventListener("click", () => {
      const down = header.ariaSort === "ascending";
      headers.forEach((each) => (each.ariaSort = "none"));
      header.ariaSort = down ? "descending" : "ascending";
      const body = rows[0].parentNode;
      const sorted = rows
        .map((row) => [valueOf(row, column), row])
        .sort(([one], [other]) => {
          if (one === null || other === null) return (one === null) - (other === null);
          return down ? compare(other, one) : compare(one, other);
        });
      body.append(...sorted.map(([, row]) => row));
    });
  });

  const controls = document.getElementById("controls");
  const text = document.getElementById("filter");
  const doubted = document.getElementById("only-doubted");
  const filter = () => {
    const wanted = text.value.trim().toLowerCase();
    rows.forEach((row) => {
      const named = row.querySelector("a").textContent.toLowerCase().includes(wanted);
      row.hidden = !named || (doubted.checked && !row.hasAttribute("data-doubted"));
      document.getElementById(row.dataset.figure).hidden = row.hidden;
    });
    const left = rows.filter(shown).length;
    document.getElementById("shown").textContent =
      left < rows.length ? `${left} of ${rows.length} images shown` : "";
  };
  text.addEventListener("input", filter);
  doubted.addEventListener("change", filter);
  controls.hidden = false;

  // ---- the viewer

  const viewer = document.getElementById("viewer");
  const svg = viewer.querySelector("svg");
  const said = document.getElementById("said");
  const outlined = document.getElementById("outlined");
  const MOST = 16; // screen pixels to a pixel of the photo
  let view = null; // what is shown: {number, width, height}
  let scale = 1; // screen pixels to a pixel of the photo
  let centre = [0, 0]; // in pixels of the photo

  const make = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
    return element;
  };

  const fitting = () =>
    Math.min(svg.clientWidth / view.width, svg.clientHeight / view.height, 4) || 1;
  const within = (wanted) => Math.min(Math.max(wanted, Math.min(fitting(), 1) / 2), MOST);

  const draw = () => {
    scale = within(scale);
    const sides = [view.width, view.height];
    centre = centre.map((place, axis) => Math.min(Math.max(place, 0), sides[axis]));
    const [width, height] = [svg.clientWidth / scale, svg.clientHeight / scale];
    const corner = [centre[0] - width / 2, centre[1] - height / 2];
    svg.setAttribute("viewBox", `${corner[0]} ${corner[1]} ${width} ${height}`);
    const line = Math.min(Math.max(2.5 * scale, 0.8), 2); // in small pictures thick ones would hide cells
    svg.style.setProperty("--line", `${line}px`);
    document.getElementById("zoom").textContent = `${Math.round(100 * scale)} %`;
  };

  // Zoom so that the point of the photo under a place on the screen stays there.
  const zoom = (factor, x = svg.clientWidth / 2, y = svg.clientHeight / 2) => {
    const before = scale;
    scale = within(scale * factor);
    const moved = 1 / before - 1 / scale;
    centre = [
      centre[0] + (x - svg.clientWidth / 2) * moved,
      centre[1] + (y - svg.clientHeight / 2) * moved,
    ];
    draw();
  };
  const pan = (right, down) => {
    centre = [centre[0] + right / scale, centre[1] + down / scale];
    draw();
  };
  const fit = () => {
    scale = fitting();
    centre = [view.width / 2, view.height / 2];
    draw();
  };

  const open = (number) => {
    const found = JSON.parse(document.getElementById(`view-${number}`).textContent);
    view = { number, width: found.width, height: found.height };
    const outlines = make("g", { id: "outlines" });
    for (const { noun, dark, light, cells } of found.classes) {
      const all = cells.map(([, path]) => path).join("");
      outlines.append(make("path", { d: all, stroke: light, class: "edge" }));
      for (const [label, path, size] of cells) {
        const line = make("path", { d: path, stroke: dark, class: "line" });
        line.dataset.said = `${noun}: cell ${label}${size ? `, ${size} wide` : ""}`;
        outlines.append(line);
      }
    }
    const sides = { width: found.width, height: found.height };
    svg.replaceChildren(make("image", { href: found.photo, ...sides }), outlines);
    svg.setAttribute("aria-label", found.described);
    document.getElementById("viewed").textContent = found.name;
    said.textContent = "";
    if (!viewer.open) viewer.showModal();
    toggle();
    fit();
  };
  const toggle = () => (svg.lastChild.style.display = outlined.checked ? "" : "none");
  const step = (by) => {
    const numbers = figures.filter(shown).map((figure) => figure.dataset.view).filter(Boolean);
    const next = numbers.indexOf(view.number) + by;
    open(numbers[(next + numbers.length) % numbers.length]);
  };

  figures.forEach((figure) => {
    const link = figure.querySelector("a");
    if (!link) return;
    link.addEventListener("click", (event) => {
      event.preventDefault();
      open(figure.dataset.view);
    });
  });

  const actions = {
    in: () => zoom(1.5),
    out: () => zoom(1 / 1.5),
    fit,
    full: () => zoom(1 / scale),
    before: () => step(-1),
    next: () => step(1),
    close: () => viewer.close(),
  };
  Object.entries(actions).forEach(([name, act]) =>
    viewer.querySelector(`[data-action="${name}"]`).addEventListener("click", act),
  );
  outlined.addEventListener("change", toggle);

  const keys = {
    "+": actions.in,
    "=": actions.in,
    "-": actions.out,
    0: fit,
    1: actions.full,
    o: () => outlined.click(),
    PageUp: actions.before,
    PageDown: actions.next,
    ArrowLeft: () => pan(-80, 0),
    ArrowRight: () => pan(80, 0),
    ArrowUp: () => pan(0, -80),
    ArrowDown: () => pan(0, 80),
  };
  viewer.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
  window.addEventListener("resize", () => viewer.open && draw());

  svg.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      zoom(Math.exp(-event.deltaY / 600), event.offsetX, event.offsetY);
    },
    { passive: false },
  );

  const fingers = new Map();
  svg.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, [event.offsetX, event.offsetY]);
    svg.setPointerCapture(event.pointerId);
    const cell = document
      .elementsFromPoint(event.clientX, event.clientY)
      .find((element) => element.classList.contains("line"));
    said.textContent = cell ? cell.dataset.said : "";
  });
  svg.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const place = [event.offsetX, event.offsetY];
    const other = [...fingers].find(([id]) => id !== event.pointerId);
    if (other) {
      const apart = (point) => Math.hypot(point[0] - other[1][0], point[1] - other[1][1]) || 1;
      zoom(apart(place) / apart(last), (place[0] + other[1][0]) / 2, (place[1] + other[1][1]) / 2);
    } else {
      pan(last[0] - place[0], last[1] - place[1]);
    }
    fingers.set(event.pointerId, place);
  });
  for (const end of ["pointerup", "pointercancel"])
    svg.addEventListener(end, (event) => fingers.delete(event.pointerId));
}
