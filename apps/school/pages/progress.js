// The page follows its run: one kind of event, each with all that is shown.
const section = document.querySelector("[data-events]");
const at = (name) => document.getElementById(name);

function say(name, text) {
  // What has not changed is not read out again.
  if (at(name).textContent !== text) at(name).textContent = text;
}

function show(run) {
  const known = run.percentage !== null;
  say("state", run.words);
  at("state").dataset.state = run.state;
  if (known) at("bar").value = run.percentage;
  else at("bar").removeAttribute("value");
  say("percentage", known ? `${run.percentage} %` : "");
  say("note", run.note);
  at("steps").hidden = run.steps.length === 0;
  at("steps").replaceChildren(
    ...run.steps.map((step) => Object.assign(document.createElement("li"), { textContent: `${step.title}: ${step.words}` })),
  );
  if (run.download) {
    say("download", run.download.words);
    at("download").href = run.download.url;
    at("download").hidden = false;
  }
  document.title = `${run.ready || !known ? run.words : `${run.percentage} %`} · ${run.title}`;
}

if (section) {
  const source = new EventSource(section.dataset.events);
  source.addEventListener("state", (event) => {
    const run = JSON.parse(event.data);
    show(run);
    if (run.ready) source.close();
  });
  source.addEventListener("error", () => {
    // Otherwise the browser connects again by itself.
    if (source.readyState === EventSource.CLOSED) say("note", "The connection was closed; load this page again.");
  });
}
