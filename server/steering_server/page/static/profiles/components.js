// The components of a profile, by the names that `except` takes.

/**
 * Return what a profile changes: {name, kind, layer, index, scale, title} for each head, neuron and part of the final layer.
 * `profile` is the content of its file; `scale` of the final layer's parts is their share or factor.
 */
export function componentsOf(profile) {
  const last = profile.model.layers - 1;
  const layers = [profile.final_layer, ...(profile.final_layers ?? [])];
  return [
    ...scaled(profile.heads.map(({ layer, head, scale }) => ({
      name: `L${layer}H${head}`, kind: "head", layer, index: head, scale, title: `head ${head} of layer ${layer}`,
    }))),
    ...scaled(profile.neurons.map(({ layer, neuron, scale }) => ({
      name: `L${layer}N${neuron}`, kind: "neuron", layer, index: neuron, scale, title: `neuron ${neuron} of layer ${layer}`,
    }))),
    ...finalLayerPart("final_layer.own_attention", last, layers.map((one) => one.own_attention), (value) => `self-only attention of the final layer, ${value}`),
    ...finalLayerPart("final_layer.intercept", last, layers.map((one) => one.intercept_scale), (value) => `intercept of the final layer, subtracted ${value} times`),
  ];
}

// A part of the final layer, if it is changed: under several conditions by the value that is farthest from 0, with all of them in the title.
function finalLayerPart(name, layer, values, titled) {
  const changed = values.filter((value) => value);
  if (!changed.length) return [];
  const scale = changed.reduce((one, other) => (Math.abs(other) > Math.abs(one) ? other : one));
  const title = titled(changed.map(numberText).join(" and "));
  return [{ name, kind: "final", layer, scale, title: changed.length > 1 ? `${title} under different conditions` : title }];
}

// One component for each name, its scale in the title. Of several scales, under different conditions, the farthest from 1 is shown.
function scaled(components) {
  return [...Map.groupBy(components, (one) => one.name).values()].map((some) => {
    const shown = some.reduce((one, other) => (distance(other.scale) > distance(one.scale) ? other : one));
    const scales = some.map((one) => numberText(one.scale)).join(" and ");
    return { ...shown, title: `${shown.title}, scaled by ${scales}${some.length > 1 ? " under different conditions" : ""}` };
  });
}

/** Return how far a scale is from 1, as a share of the farthest of all: 0 to 1. */
export function shareOf(scale, scales) {
  const most = Math.max(...scales.map(distance));
  return most ? distance(scale) / most : 0;
}

/** Return a number in at most three digits after the point. */
export function numberText(value) {
  return String(Math.round(value * 1000) / 1000).replace("-", "−");
}

// By how much an activation is multiplied: doubled is as far as halved. A component that is switched off is farther than any factor.
function distance(scale) {
  return scale > 0 ? Math.abs(Math.log(scale)) : 3;
}
