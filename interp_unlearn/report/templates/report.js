"use strict";
(function () {
  var drawn = new Set();
  var dark = window.matchMedia("(prefers-color-scheme: dark)");

  function css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }

  function colours(print) {
    return {
      "font.color": print ? "#333333" : css("--soft"),
      "hoverlabel.bgcolor": css("--tip-bg"),
      "hoverlabel.bordercolor": css("--tip-bg"),
      "hoverlabel.font.color": css("--tip-ink"),
    };
  }

  function spec(node) { return JSON.parse(document.getElementById(node.id + "-data").textContent); }

  function draw(node) {
    if (drawn.has(node)) return;
    drawn.add(node);
    var figure = spec(node);
    var narrow = node.clientWidth < 460;
    figure.layout.autosize = true;
    if (narrow) {
      figure.layout.font = { size: 11 };
      figure.layout.margin = Object.assign({}, figure.layout.margin, { l: 44, r: 8 });
      figure.data.forEach(function (trace) {  // words do not fit into cells this narrow; they stay in the hover and in the numbers
        if (trace.type === "heatmap" && trace.z[0].length > 6) delete trace.texttemplate;
      });
    }
    Plotly.newPlot(node, figure.data, figure.layout, {
      responsive: true,
      displayModeBar: false,
    }).then(function () {
      var change = colours(false), room = legendRoom(node, figure.layout.height);
      if (room) { change.height = room; node.style.height = room + "px"; }
      return Plotly.relayout(node, change);
    });
  }

  // A legend of several rows makes the figure taller instead of the plot flatter.
  function legendRoom(node, height) {
    var legend = node.querySelector("g.legend");
    var extra = legend ? legend.getBoundingClientRect().height - 40 : 0;
    return extra > 8 ? Math.round(height + extra) : 0;
  }

  var plots = Array.prototype.slice.call(document.querySelectorAll(".plot"));
  if ("IntersectionObserver" in window) {
    var watcher = new IntersectionObserver(function (entries) {
      entries.forEach(function (entry) {
        if (entry.isIntersecting) { draw(entry.target); watcher.unobserve(entry.target); }
      });
    }, { rootMargin: "800px" });
    plots.forEach(function (node) { watcher.observe(node); });
  } else {
    plots.forEach(draw);
  }
  // On paper a page is about 700 px wide: one or two figures in a row, whatever the screen was.
  function repaint(print) {
    drawn.forEach(function (node) {
      var change = colours(print);
      change.autosize = !print;
      change.width = print ? (node.closest(".figures.one") ? 690 : 336) : null;
      Plotly.relayout(node, change);
    });
  }
  dark.addEventListener("change", function () {
    drawn.forEach(function (node) { Plotly.relayout(node, colours(false)); });
  });
  window.addEventListener("beforeprint", function () {
    plots.forEach(function (node) { if (node.offsetParent !== null) draw(node); });
    repaint(true);
  });
  window.addEventListener("afterprint", function () { repaint(false); });

  document.querySelectorAll("button.save").forEach(function (button) {
    button.addEventListener("click", function () {
      var node = document.getElementById(button.dataset.plot);
      draw(node);
      Plotly.downloadImage(node, { format: "svg", filename: node.dataset.name, width: node.clientWidth, height: node.clientHeight });
    });
  });

  // The numbers behind a figure, as a table made when it is asked for.
  function cell(row, tag, value) {
    var node = document.createElement(tag);
    if (typeof value === "number") value = Number(value.toPrecision(5));
    node.textContent = value === null || value === undefined ? "–" : String(value);
    row.appendChild(node);
  }
  function unescape(text) {
    return String(text).replace(/<[^>]*>/g, " ").replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
  }
  function rowsOf(trace, layout) {
    if (trace.type === "heatmap") {
      var columns = (layout.xaxis && layout.xaxis.ticktext) || trace.x || trace.z[0].map(function (_, i) { return i; });
      return trace.z.map(function (values, i) {
        var row = [unescape(trace.y ? trace.y[i] : i)];
        values.forEach(function (value, j) {
          var words = trace.hovertext || trace.text;
          var text = words && words[i] ? unescape(words[i][j]) + " " : "";
          row.push(text + (typeof value === "number" ? Number(value.toPrecision(4)) : "–"));
        });
        return row;
      }).reverse().concat([[""].concat(Array.prototype.map.call(columns, unescape))]).reverse();
    }
    var across = trace.orientation === "h";
    return Array.prototype.map.call(trace.x || [], function (x, i) {
      var extra = trace.customdata ? [].concat(trace.customdata[i])[0] : null;
      var row = [unescape(trace.name || ""), across ? trace.y[i] : x, across ? x : trace.y[i]];
      if (extra !== null) row.splice(1, 0, unescape(extra));
      return row;
    });
  }
  document.querySelectorAll("details.numbers").forEach(function (box) {
    box.addEventListener("toggle", function () {
      if (!box.open || box.dataset.filled) return;
      box.dataset.filled = "yes";
      var figure = spec(document.getElementById(box.dataset.plot));
      var table = document.createElement("table");
      figure.data.forEach(function (trace) {
        if (trace.hoverinfo === "skip") return;
        rowsOf(trace, figure.layout).forEach(function (values) {
          var row = table.insertRow();
          values.forEach(function (value, i) { cell(row, i ? "td" : "th", value); });
        });
      });
      box.querySelector(".wide").appendChild(table);
    });
  });

  // One tip for all cells; arrow keys move between the cells of a table.
  var tip = document.getElementById("tip");
  function show(event) {
    var node = event.currentTarget, box = node.getBoundingClientRect();
    tip.textContent = node.dataset.tip;
    tip.hidden = false;
    var left = Math.min(Math.max(8, box.left), window.innerWidth - tip.offsetWidth - 8);
    var below = box.bottom + 6 + tip.offsetHeight < window.innerHeight;
    tip.style.left = left + "px";
    tip.style.top = (below ? box.bottom + 6 : box.top - tip.offsetHeight - 6) + "px";
  }
  function hide() { tip.hidden = true; }
  document.querySelectorAll("table.headline").forEach(function (table) {
    var rows = Array.prototype.map.call(table.tBodies[0].rows, function (row) {
      return Array.prototype.slice.call(row.querySelectorAll("td"));
    });
    rows.forEach(function (cells, i) {
      cells.forEach(function (node, j) {
        node.tabIndex = i || j ? -1 : 0;
        node.addEventListener("mouseenter", show);
        node.addEventListener("focus", show);
        node.addEventListener("mouseleave", hide);
        node.addEventListener("blur", hide);
        node.addEventListener("keydown", function (event) {
          var move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
          if (event.key === "Escape") hide();
          var next = move && rows[i + move[0]] && rows[i + move[0]][j + move[1]];
          if (!next) return;
          event.preventDefault();
          node.tabIndex = -1;
          next.tabIndex = 0;
          next.focus();
        });
      });
    });
  });
})();
