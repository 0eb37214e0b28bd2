// Where pages are opened as files, browsers start no worker: a hidden frame does its work, for the search.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.documentElement.append(this.frame);
      const inside = this.frame.contentWindow;
      const heard = (data) => this.onmessage && this.onmessage(new MessageEvent("message", { data }));
      inside.postMessage = (data) => setTimeout(heard, 0, structuredClone(data));
      const script = inside.document.createElement("script");
      this.loaded = new Promise((resolve, reject) => {
        script.onload = resolve;
        script.onerror = reject;
      });
      this.loaded.catch((error) => this.onerror && this.onerror(error));
      script.src = new URL(url, location.href).href;
      inside.document.body.append(script);
    }

    postMessage(data) {
      const message = new MessageEvent("message", { data: structuredClone(data) });
      this.loaded.then(() => this.frame.contentWindow.onmessage(message));
    }

    terminate() {
      this.frame.remove();
    }
  };
}
