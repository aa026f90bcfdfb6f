/** What browsers and Node from 20 on have as a global, and the SDK expects: on Node 18 it is in a module. */
import { File } from "node:buffer";

globalThis.File ??= File as unknown as typeof globalThis.File;
