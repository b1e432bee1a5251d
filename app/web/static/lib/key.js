// The key of a locked service: kept for this tab, sent with every call, and stood in for by a ticket where none can be sent.

const PLACE = "key";
const RENEW_MS = 50 * 60_000; // The ticket is good for an hour.
const LOOK_MS = 60_000;
const NEEDED = "key-needed";

let held = null;
let renewedAt = 0;
try {
  held = sessionStorage.getItem(PLACE);
} catch {
  // Storage may be forbidden; the key then holds until the page is left.
}

/** The headers of a call, with the key if there is one. */
export const withKey = (headers = {}) => (held ? { ...headers, Authorization: `Bearer ${held}` } : headers);

/** Tell whoever can ask for a key that the service wants one. */
export const needKey = () => dispatchEvent(new Event(NEEDED));

/** Be told when the service wants a key. Returns how to be told no more. */
export function onKeyNeeded(tell) {
  addEventListener(NEEDED, tell);
  return () => removeEventListener(NEEDED, tell);
}

/** A ticket, as a cookie, for images, events and downloads; the answer says whether the service takes the key, or none. */
async function renew() {
  const answer = await fetch("/v1/session", { method: "POST", headers: withKey() });
  if (answer.ok) renewedAt = Date.now();
  return answer;
}

/** Make the ticket anew where a key is held. Never fails: a service that is away is told of by whoever needs it. */
export const renewTicket = async () => void (held && (await renew().catch(() => null)));

/** A timer stands still while the computer sleeps, and a renewal may fail, so the clock says whether one is due. */
const renewWhenDue = () => Date.now() - renewedAt >= RENEW_MS && renewTicket();

/** Use this key from now on. Whether the service takes it. */
export async function useKey(key) {
  const before = held;
  held = key;
  if (!(await renew()).ok) {
    held = before;
    return false;
  }
  try {
    sessionStorage.setItem(PLACE, key);
  } catch {
    // As above.
  }
  return true;
}

/**
 * Before the page is drawn: a key from before needs a ticket, now and then a new one. Whether the service wants a key, which
 * is asked without one as well, since whatever is chosen on a page would be lost by the time a call of the page is refused.
 */
export async function resumeWithKey() {
  setInterval(renewWhenDue, LOOK_MS);
  document.addEventListener("visibilitychange", renewWhenDue);
  const answer = await renew().catch(() => null); // A service that is away is told of by the page.
  return answer?.status === 401;
}
