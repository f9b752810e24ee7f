/* Fills the one-sentence errors that travel beside a negative errno. */
#include "common/err.h"

#include <stdio.h>
#include <string.h>

#include "common/check.h"

int err_set(struct err *err, int negative_errno, const char *code, const char *format, ...)
{
    check(negative_errno < 0);
    check(code != NULL && format != NULL);
    if (err == NULL)
        return negative_errno;

    /* Formatted beside err first: an argument may point into err->text. */
    char text[sizeof(err->text)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    snprintf(err->code, sizeof(err->code), "%s", code);
    memcpy(err->text, text, sizeof(text));
    return negative_errno;
}

int err_prefix(struct err *err, int negative_errno, const char *format, ...)
{
    check(negative_errno < 0);
    if (err == NULL)
        return negative_errno;

    char text[sizeof(err->text)];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);

    const struct err before = *err;
    if (snprintf(err->text, sizeof(err->text), "%s: %s", text, before.text) >= (int)sizeof(err->text))
        err->text[sizeof(err->text) - 1] = '\0'; /* cut, like any sentence that is too long */
    return negative_errno;
}
