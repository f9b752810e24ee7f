/* A child process in a group of its own, fed, watched and, when it takes too long, killed with all its children. */
#include "witness/exec_hook.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define LOOK_MS 200

/* A file in memory holds it all: a program that reads nothing cannot make us wait. */
static int make_input(const struct alert *alert)
{
    cleanup_free char *text = alert_to_json(alert);
    int fd = text == NULL ? -1 : memfd_create("alert", MFD_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t size = strlen(text);
    text[size] = '\n';
    if (write(fd, text, size + 1) != (ssize_t)size + 1 || lseek(fd, 0, SEEK_SET) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int start(const struct exec_hook *hook, const struct alert *alert, int input, pid_t *ret)
{
    char *arguments[] = {(char *)hook->path, (char *)alert->kind, (char *)(alert->raised ? "raised" : "ended"),
                         (char *)alert->site, (char *)alert->node, NULL};
    char *environment[] = {(char *)"PATH=/usr/local/bin:/usr/bin:/bin", NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, input, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, STDERR_FILENO, STDOUT_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    int error = posix_spawn(ret, hook->path, &files, &attributes, arguments, environment);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attributes);
    return -error;
}

/* True when the child ended by itself. */
static bool wait_for(pid_t child, const atomic_bool *stopping)
{
    uint64_t until_ns = clock_boottime_ns() + EXEC_HOOK_TIMEOUT_S * NSEC_PER_SEC;
    cleanup_close int fd = (int)syscall(SYS_pidfd_open, child, 0);
    struct pollfd ended = {.fd = fd, .events = POLLIN};
    while (fd >= 0 && !*stopping && clock_boottime_ns() < until_ns)
        if (poll(&ended, 1, LOOK_MS) > 0)
            return true;
    return false;
}

int exec_hook_deliver(const struct alert *alert, const atomic_bool *stopping, void *userdata, struct err *err)
{
    const struct exec_hook *hook = userdata;
    pid_t child;
    int status = 0;
    cleanup_close int input = make_input(alert);
    if (input < 0)
        return err_set(err, -EIO, "io", "'%s': its input could not be made (%s)", hook->path, strerror(errno));
    int error = start(hook, alert, input, &child);
    if (error < 0)
        return err_set(err, error, "io", "'%s': cannot be run (%s); it must be an executable file of an absolute path",
                       hook->path, strerror(-error));
    bool ended = wait_for(child, stopping);
    /* What it left behind goes with it, also when it ended by itself. Not reaped yet, so the number is still its own. */
    kill(-child, SIGKILL);
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (!ended)
        return err_set(err, -ETIMEDOUT, "timeout", "'%s': was killed after %d s", hook->path, EXEC_HOOK_TIMEOUT_S);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(err, -EIO, "failed", "'%s': ended with %s %d", hook->path, WIFEXITED(status) ? "code" : "signal",
                       WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return 0;
}
