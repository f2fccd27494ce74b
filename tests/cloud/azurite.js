// Azurite's Blob service, which ends with whoever holds the other end of standard input.
process.stdin.on("end", () => process.exit(0)).resume();
require("azurite/dist/src/blob/main.js");
