/* Before anything is drawn: the reader's choice of light or dark; without one, the system's. */
document.documentElement.dataset.theme = localStorage.getItem("manyminds.theme") ?? "system";
