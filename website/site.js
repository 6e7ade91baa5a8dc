// What the pages do by themselves: theme, menus, copying, the mark in the list of contents, search.
const root = document.documentElement;
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// ---- theme: the script in the head has set it; a choice made here is kept
const setTheme = dark => {
  root.dataset.bsTheme = dark ? 'dark' : 'light';
  root.classList.toggle('quarto-dark', dark);
  if (dark) root.dataset.scheme = 'alternate'; else delete root.dataset.scheme;
};
const kept = () => { try { return localStorage.getItem('theme'); } catch { return null; } };
for (const button of all('.quarto-color-scheme-toggle')) button.onclick = () => {
  const dark = root.dataset.bsTheme !== 'dark';
  setTheme(dark);
  try { localStorage.setItem('theme', dark ? 'dark' : 'light'); } catch { /* a private window */ }
};
matchMedia('(prefers-color-scheme: dark)').onchange = event => { if (!kept()) setTheme(event.matches); };

// ---- a button with aria-controls shows and hides; Escape, or a click elsewhere, hides and goes back to the button
for (const button of all('button[aria-controls]')) {
  const menu = document.getElementById(button.getAttribute('aria-controls'));
  const show = on => { menu.classList.toggle('show', on); button.setAttribute('aria-expanded', on); };
  button.onclick = () => show(button.getAttribute('aria-expanded') !== 'true');
  document.addEventListener('keydown', event => {
    if (event.key !== 'Escape' || button.getAttribute('aria-expanded') !== 'true') return;
    show(false);
    button.focus();
  });
  document.addEventListener('click', event => {
    if (!menu.contains(event.target) && !button.contains(event.target)) show(false);
  });
}

// ---- code that was copied runs: what is shown wrapped keeps its lines
for (const button of all('.code-copy-button')) button.onclick = async () => {
  try { await navigator.clipboard.writeText(button.parentElement.querySelector('code').textContent); } catch { return; }
  button.classList.add('code-copy-button-checked');
  setTimeout(() => button.classList.remove('code-copy-button-checked'), 1500);
};

// ---- a figure that scrolls, for want of room, can be reached by keyboard
for (const box of all('main figure p')) if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;

// ---- a link to a folded solution or drawing opens it
const unfold = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  target?.closest('details')?.setAttribute('open', '');
};
addEventListener('hashchange', unfold);
unfold();

// ---- where a picture links into the playground, the part of it that the picture shows
for (const link of all('main a[href^="playground.html"]:has(> img)')) {
  const frame = document.createElement('iframe');
  Object.assign(frame, { src: link.href, title: link.firstElementChild.alt, loading: 'lazy', className: 'live' });
  link.replaceWith(frame);
}

// ---- the list of contents marks where the reader is
const links = all('#TOC a');
const headings = links.map(link => document.getElementById(decodeURIComponent(link.hash.slice(1))));
if (links.length) {
  const mark = () => {
    const passed = headings.filter(heading => heading.getBoundingClientRect().top < 90).length;
    links.forEach((link, i) => link.classList.toggle('active', i === Math.max(passed - 1, 0)));
  };
  addEventListener('scroll', mark, { passive: true });
  mark();
}

// ---- search, by stem: words are cut to their stems both in the index and in what is typed
const input = document.querySelector('#quarto-search input'), list = document.querySelector('#search-results');
const escape = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
let library = null;
const load = () => library ??= Promise.all([
  import('./site_libs/minisearch.js'), import('./site_libs/stemmer.js'), fetch('search.json').then(r => r.json()),
]).then(([{ default: MiniSearch }, { stemmer }, sections]) => {
  const index = new MiniSearch({
    fields: ['title', 'section', 'text'], storeFields: ['href', 'title', 'section', 'text'],
    processTerm: word => stemmer(word.toLowerCase()),
    searchOptions: { boost: { title: 3, section: 3 }, prefix: word => word.length > 2, fuzzy: word => word.length > 4 ? 0.15 : false, combineWith: 'AND' },
  });
  index.addAll(sections.map((section, id) => ({ id, ...section })));
  return { index, stemmer };
});
let chosen = -1;
const choose = i => {
  const options = all('[role=option]', list);
  chosen = options.length ? (i + options.length) % options.length : -1;
  options.forEach((option, k) => option.setAttribute('aria-selected', k === chosen));
  if (chosen < 0) return input.removeAttribute('aria-activedescendant');
  input.setAttribute('aria-activedescendant', options[chosen].id);
  options[chosen].scrollIntoView({ block: 'nearest' });
};
const close = () => {
  list.classList.remove('show');
  input.setAttribute('aria-expanded', 'false');
  input.removeAttribute('aria-activedescendant');
};
const around = (text, stems, stemmer) => { // some words on both sides of the first that was found, the found ones marked
  const words = text.split(/(\s+)/), found = word => stems.has(stemmer(word.toLowerCase().replace(/[^\p{L}\p{N}]/gu, '')));
  const first = Math.max(0, words.findIndex(found) - 16);
  return (first ? '… ' : '') + words.slice(first, first + 60).map(w => found(w) ? `<mark>${escape(w)}</mark>` : escape(w)).join('');
};
async function search() {
  const typed = input.value.trim();
  if (typed.length < 2) return close();
  const { index, stemmer } = await load();
  if (typed !== input.value.trim()) return; // more was typed meanwhile
  const hits = index.search(typed).slice(0, 20);
  const status = document.querySelector('#search-status');
  status.textContent = hits.length ? `${hits.length} results` : 'No results';
  list.innerHTML = hits.length ? hits.map((hit, i) => `<a class="search-result" role="option" aria-selected="false" tabindex="-1" id="result-${i}" href="${hit.href}">`
    + `<div class="search-result-title">${escape(hit.title)}</div>${hit.section ? `<div class="search-result-section">${escape(hit.section)}</div>` : ''}`
    + `<div class="search-result-text">${around(hit.text, new Set(hit.terms), stemmer)}</div></a>`).join('')
    : '<div class="search-none" role="option" aria-disabled="true">No results</div>';
  list.classList.add('show');
  input.setAttribute('aria-expanded', 'true');
  choose(0);
}
if (input) {
  let timer;
  input.onfocus = () => { load(); if (input.value) search(); };
  input.oninput = () => { clearTimeout(timer); timer = setTimeout(search, 120); };
  input.onkeydown = event => {
    if (event.key === 'Escape') { close(); input.blur(); }
    if (event.key === 'ArrowDown') { event.preventDefault(); choose(chosen + 1); }
    if (event.key === 'ArrowUp') { event.preventDefault(); choose(chosen - 1); }
    if (event.key === 'Enter') { event.preventDefault(); all('a[role=option]', list)[chosen]?.click(); }
  };
  document.addEventListener('click', event => { if (!event.target.closest('#quarto-search')) close(); });
  document.addEventListener('keydown', event => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);
    if (!(event.key === '/' && !typing) && !((event.ctrlKey || event.metaKey) && event.key === 'k')) return;
    event.preventDefault();
    input.focus();
  });
}
