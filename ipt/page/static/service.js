// What the page asks of the service that it came from.

const PROGRESS = "application/vnd.instruct-ipt.progress";

const headers = {}; // of every request

export function useToken(token) {
  headers.Authorization = `Bearer ${token}`;
}

export async function about() {
  return (await ask("about", {})).json();
}

// What the picture is, and a picture of it that the browser can show.
export async function look(file, signal) {
  const answer = await ask("look", { method: "POST", body: form(file, {}), signal });
  const fact = (name) => answer.headers.get(`X-${name}`);
  const preview = await answer.blob();
  const [width, height, bits] = ["Width", "Height", "Bits"].map((name) => +fact(name));
  return { preview, width, height, bits, format: fact("Format"), showsFile: fact("Shown") === "file" };
}

// Restores a picture and tells meanwhile how far it is; `signal` gives it up.
export async function restore(file, wish, signal, tell) {
  const answer = await ask("restore", {
    method: "POST",
    body: form(file, wish),
    headers: { Accept: PROGRESS },
    signal,
  });
  const bytes = new Bytes(answer.body.getReader());
  for (;;) {
    const line = JSON.parse(await bytes.line());
    if (line.error) throw new Error(plain(line.error));
    if (!line.done) {
      tell(line);
      continue;
    }
    const files = {};
    for (const { name, type, bytes: count } of line.done.files) files[name] = await bytes.take(count, type);
    return { told: line.done, ...files };
  }
}

function form(file, wish) {
  const fields = new FormData();
  fields.append("image", file);
  for (const [name, value] of Object.entries(wish)) fields.append(name, value);
  return fields;
}

async function ask(path, request) {
  let answer;
  try {
    answer = await fetch(path, { ...request, headers: { ...request.headers, ...headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The service does not answer. Is it still running?");
  }
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  throw new Error(error ? plain(error) : `The service answers ${answer.status}.`);
}

// "image: cannot be read ..." names the field; a person sees which picture is meant.
const plain = (error) => error.replace(/^image: /, "").replace(/^./, (first) => first.toUpperCase());

// A stream that is read by lines, then by numbers of bytes.
class Bytes {
  constructor(reader) {
    this.reader = reader;
    this.held = new Uint8Array();
  }

  async more() {
    let piece;
    try {
      piece = await this.reader.read();
    } catch (error) {
      if (error.name === "AbortError") throw error;
      piece = { done: true };
    }
    if (piece.done) throw new Error("The service ended before the picture was done.");
    return piece.value;
  }

  async line() {
    for (;;) {
      const end = this.held.indexOf(10);
      if (end >= 0) {
        const text = new TextDecoder().decode(this.held.subarray(0, end));
        this.held = this.held.subarray(end + 1);
        return text;
      }
      const piece = await this.more();
      const both = new Uint8Array(this.held.length + piece.length);
      both.set(this.held);
      both.set(piece, this.held.length);
      this.held = both;
    }
  }

  async take(count, type) {
    const pieces = [];
    while (count > 0) {
      const piece = this.held.length ? this.held : await this.more();
      const taken = piece.subarray(0, count);
      this.held = piece.subarray(taken.length);
      pieces.push(taken);
      count -= taken.length;
    }
    return new Blob(pieces, { type });
  }
}
