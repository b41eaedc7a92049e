// Keeps the list up to date. It waits while somebody reads in it: with the focus inside, something
// unfolded or text selected, nothing is replaced. Without script the page works by reloading.
const INTERVAL = 2000;

async function refresh() {
  const list = document.querySelector("[data-live]");
  if (!list || document.hidden || !getSelection().isCollapsed) return;
  if (list.contains(document.activeElement) || list.querySelector("details[open]")) return;
  const answer = await fetch(location.href).catch(() => null);
  if (!answer || !answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("main");
  const shown = document.querySelector("main");
  if (fresh && fresh.innerHTML !== shown.innerHTML) {
    shown.innerHTML = fresh.innerHTML;
    document.title = page.title;
  }
}

if (document.querySelector("[data-live]")) setInterval(refresh, INTERVAL);
