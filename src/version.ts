/** The version of package.json, in code because nothing at run time is read from outside the build. */
export const version = '0.1.0';
