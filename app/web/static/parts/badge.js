// The state of a job and the verdict on a pair, as coloured words.

import { html } from "../lib/html.js";
import { words } from "../lib/format.js";

const STATES = { queued: "", running: "live", cancelling: "warn", succeeded: "good", failed: "bad", cancelled: "" };
const VERDICTS = { good: "good", fixable: "warn", shifted: "warn", reject: "bad", unlike: "bad", identical: "bad" };

export const StateBadge = ({ state }) => html`<span class=${`badge ${STATES[state] ?? ""}`}>${state}</span>`;

export const VerdictBadge = ({ verdict }) => html`<span class=${`badge ${VERDICTS[verdict] ?? ""}`}>${words(verdict)}</span>`;

export const isUsable = (verdict) => VERDICTS[verdict] !== "bad";
