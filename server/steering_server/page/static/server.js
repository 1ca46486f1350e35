// What the page knows of the server: its model, its profiles, and the default that it applies.

import { Failure, getJson } from "./api.js";

const LOADING_SECONDS = 1;

/**
 * The model and profiles of the server. `profiles` has the objects of GET /v1/profiles; `usable` are those that requests may name.
 * Dispatches "change" after every reload().
 */
export class Server extends EventTarget {
  model = "";
  batchInvariant = false;
  profiles = [];
  standard = "baseline";

  /** Read everything, waiting while the model loads; `waiting` is called when it has to wait. Raises Failure. */
  async open(waiting = () => {}) {
    for (;;) {
      try {
        return await this.reload();
      } catch (error) {
        if (!(error instanceof Failure) || error.code !== "loading") throw error;
        waiting();
        await new Promise((resolve) => setTimeout(resolve, 1000 * (error.retryAfter ?? LOADING_SECONDS)));
      }
    }
  }

  /** Read the model and the profiles again. Raises Failure. */
  async reload() {
    const [ready, models, profiles] = await Promise.all([getJson("ready"), getJson("v1/models"), getJson("v1/profiles")]);
    this.model = ready.model;
    this.batchInvariant = models.data.some((model) => model.batch_invariant);
    this.profiles = profiles.data;
    this.standard = profiles.default;
    this.dispatchEvent(new Event("change"));
  }

  /** The profiles that requests may name. */
  get usable() {
    return this.profiles.filter((profile) => profile.model_name !== null);
  }

  /** Return whether requests may name this profile. */
  has(name) {
    return this.usable.some((profile) => profile.name === name);
  }
}
