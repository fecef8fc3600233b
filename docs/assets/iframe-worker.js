// Browsers refuse workers to pages that were opened from a folder. There, the search runs in a hidden frame instead.
// The class has the name by which the theme's search looks for such a stand-in.
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inside = this.frame.contentWindow
      // What the script of a worker expects to find, and a window does not have, or has for another purpose.
      inside.postMessage = data => {
        const event = new MessageEvent("message", { data })
        this.dispatchEvent(event)
        this.onmessage?.(event)
      }
      inside.importScripts = async (...addresses) => {
        for (const address of addresses) await this.load(address)
      }
      this.ready = this.load(url)
    }

    load(address) {
      const script = this.frame.contentDocument.createElement("script")
      script.src = address
      return new Promise((resolve, reject) => {
        script.onload = resolve
        script.onerror = reject
        this.frame.contentDocument.body.append(script)
      })
    }

    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
