// Images from a drop, a paste or a choice, with folders opened.

const OTHERS = /\.(txt|csv|tsv|json|xml|html?|pdf|docx?|xlsx?|pptx?|md|log|ini|zip|gz|tar|7z|rar|exe|dll|py|js|css|mp4|avi|mov|svg)$/i;
const SYSTEM = /^(\.|thumbs\.db$|desktop\.ini$|dicomdir$)/i;
const MOST = 2000;

/** The files of a drop; folders are read through. */
export async function dropped(transfer) {
  const entries = [...transfer.items].filter((item) => item.kind === "file")
    .map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  if (!entries.some((entry) => entry?.isDirectory)) return { files: [...transfer.files], left: 0 };
  const found = [];
  for (const entry of entries) {
    if (entry instanceof File) found.push(entry);
    else if (entry) await walk(entry, found);
  }
  return sorted(found);
}

async function walk(entry, found) {
  if (found.length >= MOST) return;
  if (entry.isFile) {
    found.push(await new Promise((resolve, reject) => { entry.file(resolve, reject); }));
    return;
  }
  const reader = entry.createReader();
  for (;;) {  // a reader gives a hundred at a time
    const part = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!part.length) return;
    for (const each of part) await walk(each, found);
  }
}

/** What of a folder may be an image, by name; `left` counts the others. */
export function sorted(files) {
  const kept = files.filter((file) => !OTHERS.test(file.name) && !SYSTEM.test(file.name)).slice(0, MOST);
  kept.sort((one, other) => path(one).localeCompare(path(other), undefined, { numeric: true }));
  return { files: kept, left: files.length - kept.length };
}

const path = (file) => file.webkitRelativePath || file.name;

/** The images of a paste; a screenshot has no name of its own. */
export function pasted(transfer) {
  return [...transfer.files];
}
