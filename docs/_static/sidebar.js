// The sidebar shows the open page, however far down it stands.
const page = document.querySelector('.sidebar-tree .current-page > .reference');
const sidebar = document.querySelector('.sidebar-scroll');
if (page && sidebar) {
  const [a, b] = [page, sidebar].map((e) => e.getBoundingClientRect());
  const top = sidebar.scrollTop + a.top - b.top - b.height / 2;
  if (a.top < b.top || a.bottom > b.bottom) sidebar.scrollTo({top, behavior: 'instant'});    // the theme scrolls smoothly
}
