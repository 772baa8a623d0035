// Draws the page's figures with Vega-Lite, and makes its tables sort and filter. Loads nothing.
(() => {
  "use strict";
  const look = JSON.parse(document.getElementById("look").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const fine = matchMedia("(pointer: fine)").matches; // a finger moves the page, not the chart
  const PATHS = {
    circle: "M5,0A5,5,0,1,1,-5,0A5,5,0,1,1,5,0Z",
    square: "M-4.4,-4.4H4.4V4.4H-4.4Z",
    diamond: "M0,-6L4.5,0L0,6L-4.5,0Z",
    "triangle-up": "M0,-5.5L5,4H-5Z",
    "triangle-down": "M0,5.5L5,-4H-5Z",
    cross: "M-5,-1.8H-1.8V-5H1.8V-1.8H5V1.8H1.8V5H-1.8V1.8H-5Z",
  };
  const MOST = 60; // panels of a figure at most
  let picked = null; // the settings that the reader picked; null: as each figure has it

  // a colour of a series; dark ones are lightened where the page is dark
  function seen(colour, names) {
    if (names[colour]) return names[colour];
    const parts = [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
    const light = (0.21 * parts[0] + 0.72 * parts[1] + 0.07 * parts[2]) / 255;
    const more = names === look.page && dark.matches ? Math.max(0, 0.45 - light) : 0;
    if (!more) return colour;
    return `#${parts.map((part) => Math.round(part + (255 - part) * more).toString(16).padStart(2, "0")).join("")}`;
  }

  // as `settled` of charts.py
  function settled(spec, series, names) {
    const domain = series.map((one) => one.label);
    let text = JSON.stringify(spec);
    const scales = {
      [look.colours]: series.map((one) => seen(one.colour, names)),
      [look.shapes]: series.map((one) => one.shape),
      [look.dashes]: series.map((one) => (one.dash.length ? one.dash : [1, 0])),
    };
    for (const [name, range] of Object.entries(scales))
      text = text.replaceAll(`"${name}"`, () => JSON.stringify({ domain, range }));
    for (const [name, colour] of Object.entries(names)) text = text.replaceAll(`"${name}"`, JSON.stringify(colour));
    return JSON.parse(text);
  }

  // the ends of scales are those of what is drawn at first; where the reader has picked, of what is there
  function fitted(spec, rows) {
    for (const axis of spec.usermeta.zoom) {
      const parts = spec.layer.flatMap(({ encoding }) => [encoding[axis], encoding[`${axis}2`]]).filter(Boolean);
      const fields = [...new Set(parts.map((part) => part.field).filter(Boolean))];
      const values = rows.flatMap((row) => fields.map((field) => row[field])).filter((value) => typeof value === "number");
      values.push(...parts.map((part) => part.datum).filter((value) => value !== undefined));
      const [low, high] = [Math.min(...values), Math.max(...values)];
      const room = 0.06 * (high - low || 1);
      for (const part of values.length ? parts : [])
        if (part.scale?.domain) part.scale = { domain: [low - room, high + room], nice: false };
    }
    return spec;
  }

  // pixels; a step a name is counted here, as Vega-Lite does not where the width is the container's
  function tall({ height, layer }, rows) {
    if (!height.step) return height;
    const { y, yOffset } = layer.find((one) => one.encoding.y?.field).encoding;
    const distinct = (field) => new Set(rows.map((row) => row[field])).size;
    return height.step * Math.max(1, y.scale?.domain?.length ?? distinct(y.field)) * (height.for === "offset" ? distinct(yOffset.field) + 1 : 1);
  }

  class Chart {
    constructor(element) {
      this.element = element;
      this.data = JSON.parse(element.querySelector("script").textContent);
      for (const panel of this.data.panels)
        panel.rows = panel.rows.map((row) => Object.fromEntries(row.map((value, i) => [panel.columns[i], value])));
      this.off = new Set(); // labels that the reader switched off
      this.choice = "";
      this.views = [];
      this.drawing = Promise.resolve();
      const select = element.querySelector("select");
      if (select) this.offer(select);
      element.querySelector(".tools").addEventListener("click", (event) => {
        const form = event.target.dataset?.do;
        if (form && form !== "panel") this.save(form);
      });
    }

    offer(select) {
      const { panels } = this.data;
      select.append(new Option("default", ""), ...panels.map((panel, i) => new Option(panel.title, i)));
      if (panels.length < 40) select.append(new Option("all", "all"));
      select.addEventListener("change", () => {
        this.choice = select.value;
        this.draw();
      });
    }

    settings() {
      return picked ?? (this.data.picked && new Set(this.data.picked));
    }

    panels() {
      const { panels } = this.data;
      if (this.choice === "all") return panels;
      if (this.choice !== "") return [panels[this.choice]];
      const settings = this.settings();
      return panels.filter(
        (panel) => ((picked && panel.setting) || panel.shown) && (!settings || !panel.setting || settings.has(panel.setting)),
      );
    }

    // of the settings that are drawn, also those that the legend hides
    every(panel) {
      const settings = this.choice !== "" && panel.setting ? null : this.settings();
      return panel.rows.filter((row) => !settings || !row.setting || settings.has(row.setting));
    }

    rows(panel) {
      return this.every(panel).filter((row) => !this.off.has(row[this.data.key]));
    }

    fit(spec, rows) {
      return picked && this.data.picked ? fitted(spec, rows) : spec;
    }

    present() {
      const found = new Set(this.panels().flatMap((panel) => this.every(panel).map((row) => row[this.data.key])));
      return this.data.series.filter((one) => found.has(one.label));
    }

    draw() {
      this.drawing = this.drawing.then(() => this.drawNow()).catch((error) => console.error(this.data.name, error));
      return this.drawing;
    }

    async drawNow() {
      this.views.forEach((view) => view.finalize());
      this.views = [];
      const series = this.present().filter((one) => !this.off.has(one.label));
      const place = this.element.querySelector(".panels");
      const all = this.panels();
      const panels = all.slice(0, MOST);
      const least = Math.max(...panels.map((panel) => panel.least), 0);
      const { columns, most } = this.data;
      const gap = 22 * (columns - 1);
      place.style.setProperty("--least", `${least}px`);
      place.style.setProperty("--wide", `max(${least}px, (100% - ${gap}px) / ${columns})`);
      place.style.setProperty("--most", `${Math.max(most, least)}px`);
      place.replaceChildren();
      if (!panels.some((panel) => this.every(panel).length)) place.textContent = "The settings with a tick have none of this.";
      else if (all.length > MOST) place.textContent = `The first ${MOST} of ${all.length} are drawn.`;
      for (const panel of panels) {
        if (!this.every(panel).length) continue;
        const box = document.createElement("div");
        box.className = "panel";
        if (panel.title) box.append(Object.assign(document.createElement("h4"), { textContent: panel.title }));
        const plot = box.appendChild(Object.assign(document.createElement("div"), { className: "plot" }));
        place.append(box);
        const rows = this.rows(panel);
        const spec = this.fit(settled(this.data.specs[panel.spec], series, look.page), rows);
        const { zoom } = spec.usermeta;
        if (fine && zoom.length) {
          const select = { type: "interval", encodings: zoom, zoom: "wheel![event.shiftKey]" };
          const on = spec.layer.find(({ encoding }) => zoom.every((axis) => encoding[axis]?.field));
          if (on) on.params = [{ name: "zoom", select, bind: "scales" }];
          plot.title = "Shift and wheel zoom, dragging moves, a double click resets";
        }
        const whole = {
          ...spec,
          width: "container",
          height: tall(spec, rows),
          padding: { left: 5 + spec.usermeta.left, top: 5, bottom: 5, right: 5 + spec.usermeta.right },
          data: { values: rows },
          config: { ...settled(look.config, [], look.page), legend: { disable: true } },
        };
        const options = { mode: "vega-lite", renderer: "svg", actions: false, tooltip: { theme: dark.matches ? "dark" : "light" } };
        this.views.push((await vegaEmbed(plot, whole, options)).view);
        plot.removeAttribute("title");
      }
      this.legend();
    }

    legend() {
      const list = this.element.querySelector(".legend");
      const focused = list.contains(document.activeElement) && document.activeElement.textContent;
      const entries = this.present().map((one) => {
        const entry = Object.assign(document.createElement("button"), { type: "button" });
        const shown = !this.off.has(one.label);
        const colour = seen(one.colour, look.page);
        const line = one.dash.length || this.data.key === "setting";
        const shape = PATHS[one.shape] ?? PATHS.cross;
        entry.setAttribute("aria-pressed", shown);
        entry.innerHTML = `<svg width="26" height="12" viewBox="-13 -6 26 12" aria-hidden="true">${
          line ? `<path d="M-13,0H13" style="stroke: ${colour}" stroke-width="1.8" stroke-dasharray="${one.dash.join(" ")}"/>` : ""
        }<path d="${shape}" style="fill: ${colour}"${shape === PATHS.cross && one.shape !== "cross" ? ' transform="rotate(45) scale(.7)"' : ""}/></svg>`;
        entry.append(one.label);
        entry.addEventListener("click", () => {
          if (shown) this.off.add(one.label);
          else this.off.delete(one.label);
          this.draw();
        });
        return entry;
      });
      list.replaceChildren(...(this.data.series.length > 1 ? entries : []));
      entries.find((entry) => entry.textContent === focused)?.focus();
    }

    // as `whole` of charts.py: on a light ground, with a legend
    whole() {
      const { columns, specs, most } = this.data;
      const series = this.present().filter((one) => !this.off.has(one.label));
      const concat = this.panels().map((panel) => {
        const rows = this.rows(panel);
        const width = most > look.narrow ? Math.max(columns > 1 ? look.width : look.alone, panel.least) : panel.least;
        return { title: panel.title, width, data: { values: rows }, ...this.fit(structuredClone(specs[panel.spec]), rows) };
      });
      const letters = Math.max(0, ...series.map((one) => one.label.length));
      const inAll = look.width * Math.min(concat.length, columns);
      const beside = Math.max(1, Math.floor(inAll / (look.letter * letters + look.entry)));
      const config = { ...look.config, background: look.ground, legend: { ...look.legend, columns: beside } };
      const resolve = { scale: { color: "shared", shape: "shared", strokeDash: "shared" } };
      return settled({ config, concat, columns, spacing: look.spacing, resolve }, series, look.light);
    }

    async save(form) {
      const name = this.element.id;
      if (form === "csv") return download(`${name}.csv`, new Blob([this.csv()], { type: "text/csv" }));
      const { view } = await vegaEmbed(document.createElement("div"), this.whole(), { mode: "vega-lite", actions: false });
      const [picture, svg] = [await view.toImageURL("png", 2), await view.toSVG()];
      view.finalize();
      if (form === "png") return download(`${name}.png`, decoded(picture, "image/png"));
      if (form === "svg") return download(`${name}.svg`, new Blob([svg], { type: "image/svg+xml" }));
      print(svg);
    }

    csv() {
      const lines = this.panels().flatMap((panel) => this.rows(panel).map((row) => ({ panel: panel.title, ...row })));
      const columns = [...new Set(lines.flatMap(Object.keys))];
      const quoted = (value) => {
        const text = String(value ?? "");
        return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
      };
      return [columns, ...lines.map((line) => columns.map((column) => line[column]))]
        .map((line) => line.map(quoted).join(","))
        .join("\n");
    }
  }

  function decoded(url, type) {
    return new Blob([Uint8Array.from(atob(url.split(",")[1]), (letter) => letter.charCodeAt(0))], { type });
  }

  function download(name, blob) {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  // a PDF is what the browser prints of the figure alone
  function print(svg) {
    const frame = document.createElement("iframe");
    frame.style.cssText = "position: fixed; width: 0; height: 0; border: 0";
    const [, width, height] = svg.match(/width="([\d.]+)" height="([\d.]+)"/);
    frame.srcdoc = `<style>@page { size: ${width}px ${height}px; margin: 0 } body { margin: 0 }</style>${svg}`;
    frame.addEventListener("load", () => {
      frame.contentWindow.addEventListener("afterprint", () => frame.remove());
      frame.contentWindow.print();
    });
    document.body.append(frame);
  }

  const charts = [...document.querySelectorAll("figure.chart")].map((element) => (element.chart = new Chart(element)));
  let round = 0;
  async function drawAll() {
    const mine = ++round;
    document.documentElement.removeAttribute("data-drawn");
    for (const chart of charts) {
      await chart.draw();
      if (mine !== round) return; // a later one has begun
    }
    document.documentElement.setAttribute("data-drawn", "");
  }

  class Sorted {
    constructor(table) {
      this.table = table;
      this.body = table.tBodies[0];
      this.rows = [...this.body.rows];
      const bar = table.parentElement.previousElementSibling;
      this.bar = bar?.classList.contains("picking") ? bar : null;
      this.first = Number(table.dataset.first ?? Infinity);
      this.exact = ""; // the setting whose rows alone are shown
      [...table.tHead.rows[0].cells].forEach((head, i) => {
        head.tabIndex = 0;
        head.addEventListener("click", () => this.sort(head, i));
        head.addEventListener("keydown", (event) => {
          if (event.key !== "Enter" && event.key !== " ") return;
          event.preventDefault();
          this.sort(head, i);
        });
      });
      this.bar?.querySelector("input").addEventListener("input", () => {
        this.exact = "";
        this.show();
      });
      this.bar?.addEventListener("click", (event) => {
        if (event.target.dataset.do === "all") {
          this.first = Infinity;
          event.target.remove();
          this.show();
        }
      });
      if (this.bar?.hasAttribute("data-picks")) this.picks();
    }

    sort(head, column) {
      const down = head.dataset.sorted !== "down";
      for (const other of head.parentElement.cells) {
        delete other.dataset.sorted;
        other.removeAttribute("aria-sort");
      }
      head.dataset.sorted = down ? "down" : "up";
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
      };
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1; // what is missing stands below
        const found = typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true });
        return down === (typeof x === "number") ? -found : found;
      };
      const reference = (row) => Number(row.classList.contains("reference"));
      this.rows.sort((a, b) => reference(a) - reference(b) || order(a, b));
      this.body.append(...this.rows);
      this.show();
    }

    show() {
      const wanted = (this.bar?.querySelector("input").value ?? "").trim().toLowerCase();
      let room = this.first;
      for (const row of this.rows) {
        const fits = this.exact ? row.dataset.setting === this.exact : row.textContent.toLowerCase().includes(wanted);
        row.hidden = !fits || (!wanted && !row.className && room-- <= 0);
      }
    }

    only(setting) {
      this.exact = this.bar.querySelector("input").value = setting;
      this.show();
    }

    picks() {
      const drawn = new Set(charts.flatMap((chart) => chart.data.picked ?? []));
      for (const row of this.rows) {
        const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: drawn.has(row.dataset.setting) });
        box.setAttribute("aria-label", `draw ${row.dataset.setting}`);
        box.addEventListener("change", () => this.pick());
        row.cells[0].prepend(box);
      }
      this.bar.addEventListener("click", (event) => {
        const box = (row) => row.querySelector("input[type=checkbox]");
        if (event.target.dataset.do === "filtered") {
          for (const row of this.rows) box(row).checked = !row.hidden;
          this.pick();
        } else if (event.target.dataset.do === "best") {
          for (const row of this.rows) box(row).checked = drawn.has(row.dataset.setting);
          picked = null;
          drawAll();
        }
      });
    }

    pick() {
      const ticked = this.rows.filter((row) => row.querySelector("input[type=checkbox]").checked);
      picked = new Set(ticked.map((row) => row.dataset.setting));
      clearTimeout(this.later);
      this.later = setTimeout(drawAll, 200); // after the last of several ticks
    }
  }

  const tables = [...document.querySelectorAll("table.sortable")].map((table) => new Sorted(table));
  const trials = tables.find((table) => table.table.id === "trials");
  document.addEventListener("click", (event) => {
    const setting = event.target.dataset?.to;
    if (setting !== undefined && trials?.bar) trials.only(setting);
  });
  dark.addEventListener("change", drawAll);
  drawAll();
})();
