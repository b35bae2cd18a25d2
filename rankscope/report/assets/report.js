"use strict";
for (const figure of document.querySelectorAll("figure")) {
  const drawing = figure.querySelector(".drawing");
  const svg = drawing.querySelector("svg");
  const tip = drawing.querySelector(".tip");
  const { unit, panels } = JSON.parse(figure.querySelector("script").textContent);
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  ring.setAttribute("r", 3.5);
  ring.setAttribute("fill", "none");
  ring.setAttribute("stroke", "#000");
  const points = panels.flatMap((panel) =>
    panel.series.flatMap((series) =>
      series.at.map(([x, y], i) => ({ x, y, panel, series, values: series.values[i] }))));
  let at = -1;

  const words = ({ panel, series, values }) => {
    const [x, y, value] = values;
    const lines = [panel.title, series.label].filter(Boolean);
    lines.push(value === undefined ? `${unit} ${x}: ${y}` : `${x}, ${y}: ${value}`);
    return lines.join("\n");
  };
  const show = (point) => {
    ring.setAttribute("cx", point.x);
    ring.setAttribute("cy", point.y);
    svg.append(ring);
    tip.textContent = words(point);
    tip.hidden = false;
    const to = svg.getScreenCTM();
    const box = drawing.getBoundingClientRect();
    const x = to.a * point.x + to.e - box.left + drawing.scrollLeft;
    const y = to.d * point.y + to.f - box.top;
    tip.style.left = `${Math.min(x + 10, drawing.scrollLeft + drawing.clientWidth - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(0, y - tip.offsetHeight - 8)}px`;
    drawing.setAttribute("aria-label", tip.textContent.replaceAll("\n", ", "));
  };
  const hide = () => {
    tip.hidden = true;
    ring.remove();
  };
  const nearest = (event) => {
    const to = svg.getScreenCTM().inverse();
    const x = to.a * event.clientX + to.e;
    const y = to.d * event.clientY + to.f;
    let best = -1;
    let least = 40 ** 2;
    points.forEach((point, i) => {
      const { left, right, top, bottom } = point.panel;
      if (x < left - 4 || x > right + 4 || y < top - 4 || y > bottom + 4) return;
      const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (distance < least) [best, least] = [i, distance];
    });
    return best;
  };
  drawing.addEventListener("pointermove", (event) => {
    at = nearest(event);
    if (at < 0) hide();
    else show(points[at]);
  });
  drawing.addEventListener("pointerleave", hide);
  drawing.addEventListener("blur", hide);
  drawing.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step || !points.length) return;
    event.preventDefault();
    at = (at + step + points.length) % points.length;
    show(points[at]);
  });
}

const table = document.querySelector("#matrices table");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const form = document.querySelector(".filters");
  const count = form.querySelector("[data-count]");
  const filter = () => {
    const text = form.elements.text.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      const chosen = ["run", "component", "role"].every((name) => {
        const value = form.elements[name].value;
        return value === "" || row.dataset[name] === value;
      });
      row.hidden = !(chosen && row.textContent.toLowerCase().includes(text));
      shown += !row.hidden;
    }
    count.textContent = `${shown} of ${rows.length} matrices`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("change", filter);
  form.addEventListener("submit", (event) => event.preventDefault());

  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.value ?? cell.textContent.trim();
    const number = text === "inf" ? Infinity : parseFloat(text.replace(/^layer /, ""));
    return { empty: text === "", number, text };
  };
  const compare = (a, b) => {
    if (Number.isNaN(a.number) || Number.isNaN(b.number)) {
      return a.text.localeCompare(b.text, "en", { numeric: true });
    }
    return a.number - b.number;
  };
  for (const head of table.tHead.rows[0].cells) {
    head.querySelector("button")?.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const keys = new Map(rows.map((row) => [row, key(row, head.cellIndex)]));
      rows.sort((a, b) => {
        const [x, y] = [keys.get(a), keys.get(b)];
        if (x.empty || y.empty) return x.empty - y.empty;
        return (down ? -1 : 1) * compare(x, y);
      });
      body.append(...rows);
    });
  }
}
