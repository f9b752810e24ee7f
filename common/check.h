/* Assertions that stay on in every build: a programmer's error ends the process, it never goes on. */
#pragma once

/* Unlike assert() not switched off by NDEBUG. Prints the expression and its place, then aborts. */
#define check(expression) ((expression) ? (void)0 : check_failed(#expression, __FILE__, __LINE__, __func__))

_Noreturn void check_failed(const char *expression, const char *file, int line, const char *function);
