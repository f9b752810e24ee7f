/* Reading secrets from a terminal, a file or a pipe. */
#include "cli/password.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "common/seal.h"

/* One line without its end, straight from the descriptor: no copy stays in a buffer of stdio. */
static int read_line(int fd, char ret[static PASSWORD_MAX])
{
    size_t size = 0;
    for (;;) {
        char c;
        ssize_t got = read(fd, &c, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (got == 0 || c == '\n')
            break;
        if (size + 1 == PASSWORD_MAX)
            return -E2BIG;
        ret[size++] = c;
    }
    if (size && ret[size - 1] == '\r')
        size--;
    ret[size] = 0;
    return size ? 0 : -ENODATA;
}

static int ask_once(int terminal, const char *prompt, const char *whose, char ret[static PASSWORD_MAX])
{
    struct termios shown, hidden;
    if (tcgetattr(terminal, &shown) < 0)
        return -errno;
    hidden = shown;
    hidden.c_lflag &= ~(tcflag_t)ECHO;
    tcsetattr(terminal, TCSAFLUSH, &hidden); /* before the prompt: who types at once is not shown either */
    dprintf(terminal, prompt, whose);
    int result = read_line(terminal, ret);
    tcsetattr(terminal, TCSAFLUSH, &shown);
    dprintf(terminal, "\n");
    return result;
}

int password_ask(const char *whose, char ret[static PASSWORD_MAX], struct err *err)
{
    char again[PASSWORD_MAX] = "";
    int terminal = open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (terminal < 0)
        return err_set(err, -ENOTTY, "invalid",
                       "secret of '%s': there is no terminal to ask on; give it with --secret-file FILE", whose);
    int result = ask_once(terminal, "Secret of '%s' (12 to 63 characters): ", whose, ret);
    if (result == 0)
        result = ask_once(terminal, "The same again: ", whose, again);
    bool same = result == 0 && !strcmp(ret, again);
    seal_wipe(again, sizeof again);
    close(terminal);
    if (same)
        return 0;
    seal_wipe(ret, PASSWORD_MAX);
    return err_set(err, -EINVAL, "invalid", "secret of '%s': %s; nothing was changed", whose,
                   result == 0 ? "the two were not the same" : "none was typed");
}

int password_read(const char *path, char (*ret)[PASSWORD_MAX], unsigned count, struct err *err)
{
    struct stat status;
    bool is_stdin = !strcmp(path, "-");
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC), result = fd < 0 ? -errno : 0;
    if (result == 0 && !is_stdin && fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && (status.st_mode & 077)) {
        close(fd);
        return err_set(err, -EPERM, "invalid", "file '%s': others may read it; say `chmod 600 %s` first", path, path);
    }
    for (unsigned i = 0; i < count && result == 0; i++)
        result = read_line(fd, ret[i]);
    if (fd >= 0 && !is_stdin)
        close(fd);
    if (result == 0)
        return 0;
    seal_wipe(ret, count * sizeof ret[0]);
    if (result == -ENODATA)
        return err_set(err, -EINVAL, "invalid", "%s: %s", is_stdin ? "stdin" : path,
                       count == 1 ? "its first line must be the secret"
                                  : "it must hold two lines, the user's secret and the mutual user's");
    return err_set(err, result, "io", "%s: the secret cannot be read (%s)", is_stdin ? "stdin" : path,
                   strerror(-result));
}
