// Live updates: the server names units that changed; the parts of the page that show them are fetched anew.
"use strict";
(() => {
  const light = document.getElementById("live");
  if (!light) return;
  const only = document.body.dataset.unit; // on the page of one unit
  let timer = null, busy = false, again = false;

  async function refresh() {
    timer = null;
    if (busy) { again = true; return; }
    busy = true;
    try {
      const r = await fetch(location.href, {headers: {"Gprov-Part": "1"}, credentials: "same-origin", cache: "no-store"});
      if (r.redirected || r.status === 401) { location.reload(); return; }
      if (r.ok) {
        const page = new DOMParser().parseFromString(await r.text(), "text/html");
        for (const fresh of page.querySelectorAll("[data-live]")) {
          const old = document.querySelector(`[data-live="${fresh.dataset.live}"]`);
          if (old && old.innerHTML !== fresh.innerHTML && !old.contains(document.activeElement)) old.innerHTML = fresh.innerHTML;
        }
        times();
      }
    } catch { /* the stream tells when the server is back */ }
    busy = false;
    if (again) { again = false; soon(); }
  }
  function soon() { if (!timer) timer = setTimeout(refresh, 250); }

  // Times in the zone of who looks.
  function times() {
    for (const t of document.querySelectorAll("time[datetime]")) {
      const d = new Date(t.dateTime), today = new Date().toDateString() === d.toDateString();
      t.textContent = today ? d.toLocaleTimeString() : d.toLocaleString();
      t.title = t.dateTime;
    }
  }
  times();

  const source = new EventSource("/live");
  source.onopen = () => { light.className = "live on"; light.textContent = "live"; soon(); };
  source.onerror = () => { light.className = "live off"; light.textContent = "no connection"; };
  source.addEventListener("unit", e => { const u = JSON.parse(e.data); if (!only || u === "" || u === only) soon(); });
  document.addEventListener("submit", e => {
    const ask = e.target.dataset.ask;
    if (ask && !confirm(ask)) e.preventDefault();
  });
})();
