/**
 * Tells whether a parameter holds what RFC 6749 Appendix A.15 (UNICODECHARNOCRLF) leaves out: the control
 * characters of ASCII, other than TAB. PostgreSQL cannot store U+0000, and line breaks could forge log lines.
 */
export const hasControlCharacters = (text: string): boolean =>
  /[^\P{Cc}\t\u0080-\u009f]/u.test(text);
