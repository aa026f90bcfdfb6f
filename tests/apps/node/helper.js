export const word = "helped";
