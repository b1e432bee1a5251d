// Something that is fetched while a part of the page shows.

import { useCallback, useEffect, useState } from "./html.js";

/**
 * `{value, problem, reload}` of a promise that is made anew whenever `key` changes. Where a reload fails, the value of before stays.
 * @template T @param {() => Promise<T>} fetchIt @param {string} key
 */
export function useLoaded(fetchIt, key) {
  const [state, setState] = useState({ key: null, value: null, problem: null });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let wanted = true;
    fetchIt().then(
      (value) => wanted && setState({ key, value, problem: null }),
      (problem) => wanted && setState((before) => ({ key, value: before.key === key ? before.value : null, problem })),
    );
    return () => (wanted = false);
  }, [key, round]);
  const reload = useCallback(() => setRound((before) => before + 1), []);
  return state.key === key ? { ...state, reload } : { value: null, problem: null, reload };
}
