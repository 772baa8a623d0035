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
  let picked = null; // the settings that the reader picked; null: as each figure has it

  const theme = () => (dark.matches ? look.dark : look.light);
  // a colour of a series on this ground: dark ones are lightened where the page is dark
  function seen(colour, colours) {
    if (colours[colour]) return colours[colour];
    const parts = [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
    const light = (0.21 * parts[0] + 0.72 * parts[1] + 0.07 * parts[2]) / 255;
    const more = colours === look.dark ? Math.max(0, 0.45 - light) : 0;
    return `#${parts.map((part) => Math.round(part + (255 - part) * more).toString(16).padStart(2, "0")).join("")}`;
  }

  // as `settled` of charts.py
  function settled(spec, series, colours) {
    const domain = series.map((one) => one.label);
    let text = JSON.stringify(spec);
    const scales = {
      "@colours": series.map((one) => seen(one.colour, colours)),
      "@shapes": series.map((one) => one.shape),
      "@dashes": series.map((one) => (one.dash.length ? one.dash : [1, 0])),
    };
    for (const [name, range] of Object.entries(scales))
      text = text.replaceAll(`"${name}"`, () => JSON.stringify({ domain, range }));
    for (const [name, colour] of Object.entries(colours)) text = text.replaceAll(`"${name}"`, JSON.stringify(colour));
    return JSON.parse(text);
  }

  // pixels; a step a name is counted here, as Vega-Lite does not where the width is the container's
  function tall({ height, layer }, rows) {
    if (!height.step) return height;
    const { y, yOffset } = layer.find((one) => one.encoding.y?.field).encoding;
    const distinct = (field) => new Set(rows.map((row) => row[field])).size;
    return height.step * Math.max(1, distinct(y.field)) * (height.for === "offset" ? distinct(yOffset.field) + 1 : 1);
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
      const found = panels.filter(
        (panel) => (picked && panel.setting ? true : panel.shown) && (!settings || !panel.setting || settings.has(panel.setting)),
      );
      return found.slice(0, 60);
    }

    rows(panel) {
      const settings = this.choice !== "" && panel.setting ? null : this.settings();
      return panel.rows.filter(
        (row) => (!settings || !row.setting || settings.has(row.setting)) && !this.off.has(row[this.data.key]),
      );
    }

    present() {
      const settings = this.settings();
      const found = new Set();
      for (const panel of this.panels())
        for (const row of panel.rows)
          if (!settings || !row.setting || settings.has(row.setting)) found.add(row[this.data.key]);
      return this.data.series.filter((one) => found.has(one.label));
    }

    draw() {
      this.drawing = this.drawing.then(() => this.drawNow()).catch((error) => console.error(this.data.name, error));
      return this.drawing;
    }

    async drawNow() {
      this.views.forEach((view) => view.finalize());
      this.views = [];
      const colours = theme();
      const series = this.present().filter((one) => !this.off.has(one.label));
      const place = this.element.querySelector(".panels");
      const panels = this.panels();
      const least = Math.max(...panels.map((panel) => panel.least), 0);
      const { columns, most } = this.data;
      const gap = 22 * (columns - 1);
      place.style.setProperty("--least", `${least}px`);
      place.style.setProperty("--wide", `max(${least}px, (100% - ${gap}px) / ${columns})`);
      place.style.setProperty("--most", `${Math.max(most, least)}px`);
      place.replaceChildren();
      for (const panel of panels) {
        const box = document.createElement("div");
        box.className = "panel";
        if (panel.title) box.append(Object.assign(document.createElement("h4"), { textContent: panel.title }));
        const plot = box.appendChild(Object.assign(document.createElement("div"), { className: "plot" }));
        place.append(box);
        const spec = settled(this.data.specs[panel.spec], series, colours);
        const zoom = spec.usermeta?.zoom ?? [];
        if (fine && zoom.length) {
          const select = { type: "interval", encodings: zoom, zoom: "wheel![event.shiftKey]" };
          spec.layer[0].params = [{ name: "zoom", select, bind: "scales" }];
          plot.title = "Shift and wheel zoom, dragging moves, a double click resets";
        }
        const rows = this.rows(panel);
        const whole = {
          ...spec,
          width: "container",
          height: tall(spec, rows),
          padding: { left: 5, top: 5, bottom: 5, right: 5 + (spec.usermeta?.right ?? 0) },
          data: { values: rows },
          config: { ...settled(look.config, [], colours), legend: { disable: true } },
        };
        const options = { mode: "vega-lite", renderer: "svg", actions: false, tooltip: { theme: dark.matches ? "dark" : "light" } };
        this.views.push((await vegaEmbed(plot, whole, options)).view);
        plot.removeAttribute("title");
      }
      this.legend(colours);
    }

    legend(colours) {
      const entries = this.present().map((one) => {
        const entry = Object.assign(document.createElement("button"), { type: "button" });
        const shown = !this.off.has(one.label);
        const colour = seen(one.colour, colours);
        const line = one.dash.length || this.data.key === "setting";
        const shape = PATHS[one.shape] ?? PATHS.cross;
        entry.setAttribute("aria-pressed", shown);
        entry.innerHTML = `<svg width="26" height="12" viewBox="-13 -6 26 12" aria-hidden="true">${
          line ? `<path d="M-13,0H13" stroke="${colour}" stroke-width="1.8" stroke-dasharray="${one.dash.join(" ")}"/>` : ""
        }<path d="${shape}" fill="${colour}"${shape === PATHS.cross && one.shape !== "cross" ? ' transform="rotate(45) scale(.7)"' : ""}/></svg>`;
        entry.append(one.label);
        entry.addEventListener("click", () => {
          if (shown) this.off.add(one.label);
          else this.off.delete(one.label);
          this.draw();
        });
        return entry;
      });
      this.element.querySelector(".legend").replaceChildren(...(this.data.series.length > 1 ? entries : []));
    }

    // as `whole` of charts.py: on a light ground, with a legend
    whole() {
      const { columns, specs, most } = this.data;
      const series = this.present().filter((one) => !this.off.has(one.label));
      const concat = this.panels().map((panel) => ({
        title: panel.title,
        width: most > 600 ? Math.max(columns > 1 ? 420 : 714, panel.least) : panel.least,
        data: { values: this.rows(panel) },
        ...specs[panel.spec],
      }));
      const letters = Math.max(0, ...series.map((one) => one.label.length));
      const beside = Math.max(1, Math.floor((420 * Math.min(concat.length, columns)) / (look.letter * letters + 40)));
      const config = { ...look.config, background: "@page", legend: { ...look.legend, columns: beside } };
      const resolve = { scale: { color: "shared", shape: "shared", strokeDash: "shared" } };
      return settled({ config, concat, columns, spacing: 28, resolve }, series, look.light);
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

  const charts = [...document.querySelectorAll("figure.chart")].map((element) => new Chart(element));
  async function drawAll() {
    document.documentElement.removeAttribute("data-drawn");
    for (const chart of charts) await chart.draw();
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
      [...table.tHead.rows[0].cells].forEach((head, i) => head.addEventListener("click", () => this.sort(head, i)));
      this.bar?.querySelector("input").addEventListener("input", () => this.show());
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
      for (const other of head.parentElement.cells) delete other.dataset.sorted;
      head.dataset.sorted = down ? "down" : "up";
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
        const setting = row.dataset.setting?.toLowerCase();
        const fits = !wanted || setting === wanted || row.textContent.toLowerCase().includes(wanted);
        row.hidden = !fits || (!wanted && !row.className && room-- <= 0);
      }
    }

    filter(text) {
      this.bar.querySelector("input").value = text;
      this.show();
      // a setting's own name, and not those that begin like it
      for (const row of this.rows) if (row.dataset.setting !== text) row.hidden = true;
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
      drawAll();
    }
  }

  const tables = [...document.querySelectorAll("table.sortable")].map((table) => new Sorted(table));
  const trials = tables.find((table) => table.table.id === "trials");
  document.addEventListener("click", (event) => {
    const setting = event.target.dataset?.to;
    if (setting !== undefined && trials?.bar) trials.filter(setting);
  });
  dark.addEventListener("change", drawAll);
  drawAll();
})();
