// The WebSocket: connects again by itself, remembers what it is subscribed to, notices lost frames.

const RETRY_MS = [300, 600, 1200, 2500, 5000];

/**
 * @typedef {object} Handlers
 * @property {(frame: any) => void} onFrame   every frame, in order
 * @property {() => void} onOpen
 * @property {() => void} onClose
 * @property {(reason: string) => void} onResync  the state must be asked for anew
 */

export class LiveSocket {
  /** @param {Handlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    /** @type {Set<string>} */
    this.channels = new Set();
    /** @type {Map<string, number>} */
    this.sequence = new Map();
    this.attempt = 0;
    this.frames = 0;
    /** @type {WebSocket | null} */
    this.socket = null;
    this.connect();
  }

  get isOpen() {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/api/v1/ws`);
    this.socket = socket;
    socket.addEventListener("open", () => {
      this.attempt = 0;
      this.sequence.clear();
      this.send({ op: "sub", ch: [...this.channels] });
      this.handlers.onOpen();
    });
    socket.addEventListener("message", (event) => this.take(JSON.parse(event.data)));
    socket.addEventListener("close", () => {
      this.handlers.onClose();
      const pause = RETRY_MS[Math.min(this.attempt++, RETRY_MS.length - 1)];
      setTimeout(() => this.connect(), pause * (0.75 + Math.random() / 2));
    });
  }

  /** @param {any} frame */
  take(frame) {
    this.frames += 1;
    if (frame.op === "resync") {
      this.sequence.clear();
      this.handlers.onResync(frame.reason);
      return;
    }
    if (frame.ch && !this.channels.has(frame.ch)) return;
    if (frame.ch) {
      const last = this.sequence.get(frame.ch);
      this.sequence.set(frame.ch, frame.seq);
      if (last !== undefined && frame.seq !== last + 1) this.handlers.onResync("gap");
    }
    this.handlers.onFrame(frame);
  }

  /** @param {string} channel */
  subscribe(channel) {
    this.channels.add(channel);
    this.send({ op: "sub", ch: [channel] });
  }

  /** @param {string} channel */
  unsubscribe(channel) {
    this.channels.delete(channel);
    this.sequence.delete(channel);
    this.send({ op: "unsub", ch: [channel] });
  }

  /** @param {object} command */
  send(command) {
    if (this.isOpen) this.socket?.send(JSON.stringify(command));
  }
}
