// The search runs in a web worker, which browsers refuse to pages that are opened as files. There a hidden frame takes
// its place. It has the name that the theme's search looks for.
(function () {
  if (location.protocol !== "file:") return
  class IFrameWorker extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      this.frame = frame
      const inside = frame.contentWindow
      this.listener = event => {
        if (event.source === inside)
          this.dispatchEvent(new MessageEvent("message", { data: event.data }))
      }
      addEventListener("message", this.listener)
      this.ready = new Promise(resolve => { inside.whenLoaded = resolve })
      inside.document.open()
      inside.document.write(
        "<!doctype html><html><body><script>" +
        "const whenLoaded = window.whenLoaded;" +
        "window.postMessage = data => parent.dispatchEvent(new MessageEvent('message', { data, source: window }));" +
        "</scr" + "ipt><script src=\"" + url + "\" onload=\"whenLoaded()\"></scr" + "ipt></body></html>"
      )
      inside.document.close()
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }
    terminate() {
      removeEventListener("message", this.listener)
      this.frame.remove()
    }
  }
  window.IFrameWorker = window.Worker = IFrameWorker
})()
