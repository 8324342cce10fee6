// The slider shows every set as it was after a share of its iterations.
(function () {
  "use strict";
  const slider = document.getElementById("step");
  const places = slider.dataset.places.split(",").map(Number);

  function nearest(steps, step) {
    return steps.reduce((best, other, i) => (Math.abs(other - step) < Math.abs(steps[best] - step) ? i : best), 0);
  }

  slider.addEventListener("input", function () {
    const part = places[Number(slider.value)];
    const name = part === 0 ? "start" : part === 1 ? "end" : "1/" + Math.round(1 / part);
    document.getElementById("place").value = name;
    slider.setAttribute("aria-valuetext", name);
    for (const set of document.querySelectorAll(".set")) {
      const steps = set.dataset.steps.split(",").map(Number);
      if (steps.length < 2) continue;
      const last = steps[steps.length - 1];
      const at = nearest(steps, part * last);
      set.querySelector(".sprite").style.backgroundPosition = "0 " + (100 * at) / (steps.length - 1) + "%";
      set.querySelector(".step").textContent = "step " + steps[at] + " of " + last;
    }
  });
})();
