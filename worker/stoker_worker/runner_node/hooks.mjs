// Where an app finds its packages: in its environment, which lies beside the app's folder and not in it.

let appUrl = "";
let envUrl = "";

/** Called by Node in the thread of the hooks. */
export function initialize(data) {
  ({ appUrl, envUrl } = data);
}

/** What the app's own files import by name comes from the environment; all else is left to Node. */
export async function resolve(specifier, context, next) {
  if (!concerns(specifier, context.parentURL)) return next(specifier, context);
  try {
    return await next(specifier, { ...context, parentURL: envUrl });
  } catch (error) {
    if (!isMissing(error)) throw error;
    return next(specifier, context);
  }
}

/** The same, for a Node whose hooks run in the app's thread; these see `require` too. */
export function syncHooks(data) {
  initialize(data);
  return {
    resolve(specifier, context, next) {
      if (!concerns(specifier, context.parentURL)) return next(specifier, context);
      try {
        return next(specifier, { ...context, parentURL: envUrl });
      } catch (error) {
        if (!isMissing(error)) throw error;
        return next(specifier, context);
      }
    },
  };
}

function concerns(specifier, parent) {
  const byName = !/^(\.{0,2}\/|#|[a-z][a-z0-9+.-]*:)/i.test(specifier) && specifier !== "." && specifier !== "..";
  return byName && typeof parent === "string" && parent.startsWith(appUrl) && !parent.slice(appUrl.length).includes("node_modules/");
}

function isMissing(error) {
  return error?.code === "ERR_MODULE_NOT_FOUND" || error?.code === "MODULE_NOT_FOUND";
}
