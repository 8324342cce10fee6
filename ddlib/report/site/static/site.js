// The theme at once, so that no page flashes; the rest when the page is there.
(function () {
  "use strict";
  var root = document.documentElement;

  function stored(theme) {
    try {
      if (theme) localStorage.setItem("ddlib-theme", theme);
      return localStorage.getItem("ddlib-theme");
    } catch (error) {
      return theme || null; // a browser that keeps nothing for files
    }
  }

  function isDark() {
    var told = root.dataset.theme;
    return told ? told === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }

  if (stored()) root.dataset.theme = stored();

  function toggleTheme() {
    root.dataset.theme = isDark() ? "light" : "dark";
    stored(root.dataset.theme);
  }

  function openTarget() {
    var target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (var inside = target; inside; inside = inside.parentElement) if (inside.tagName === "DETAILS") inside.open = true;
    if (target) target.scrollIntoView();
  }

  function gallery(controls) {
    var by = function (id) { return document.getElementById(id); };
    var sets = Array.from(document.querySelectorAll(".set"));
    var slider = by("step");
    var places = slider.dataset.places.split(",").map(Number); // shares of a set's iterations

    function named(part) {
      return part === 0 ? "start" : part === 1 ? "end" : "1/" + Math.round(1 / part);
    }

    function nearest(steps, step) {
      return steps.reduce(function (best, one, i) {
        return Math.abs(one - step) < Math.abs(steps[best] - step) ? i : best;
      }, 0);
    }

    function filter() {
      var shown = 0;
      sets.forEach(function (set) {
        var fits = set.dataset.dataset === by("dataset").value && (!by("ipc").value || set.dataset.ipc === by("ipc").value);
        set.hidden = !fits || ("variant" in set.dataset && !by("variants").checked);
        shown += set.hidden ? 0 : 1;
      });
      by("empty").hidden = shown > 0;
    }

    function move() {
      var part = places[Number(slider.value)];
      by("place").value = named(part);
      slider.setAttribute("aria-valuetext", named(part));
      sets.forEach(function (set) {
        var steps = set.dataset.steps.split(",").map(Number);
        if (steps.length < 2) return;
        var at = nearest(steps, part * steps[steps.length - 1]);
        set.querySelector(".sprite").style.backgroundPosition = "0 " + (100 * at) / (steps.length - 1) + "%";
        set.querySelector(".step").textContent = "step " + steps[at] + " of " + steps[steps.length - 1];
      });
    }

    controls.addEventListener("submit", function (event) { event.preventDefault(); });
    controls.addEventListener("change", filter);
    slider.addEventListener("input", move);
    filter();
    move();
  }

  document.addEventListener("DOMContentLoaded", function () {
    document.getElementById("theme").addEventListener("click", toggleTheme);
    var controls = document.getElementById("controls");
    if (controls) gallery(controls);
    openTarget();
    addEventListener("hashchange", openTarget);
  });
})();
