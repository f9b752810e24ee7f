/* Writes log sentences to the journal or, outside of systemd, to stderr. */
#define SD_JOURNAL_SUPPRESS_LOCATION
#include "common/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <systemd/sd-journal.h>
#include <time.h>
#include <unistd.h>

#define LOG_SENTENCE_MAX 2048

/* The one process-wide setting: written by log_init before any thread starts, read-only afterwards. */
static struct {
    const char *daemon;
    enum log_level highest;
    bool to_journal;
} settings = {.daemon = "hci", .highest = LOG_LEVEL_INFO};

/* systemd.exec(5): $JOURNAL_STREAM holds "device:inode" of the stream given to the service; comparing guards
 * against an inherited variable while stderr itself was redirected elsewhere. */
static bool stderr_is_journal(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat status;

    return text != NULL && sscanf(text, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &status) == 0 &&
           status.st_dev == device && status.st_ino == inode;
}

void log_init(const char *daemon, enum log_level highest)
{
    settings.daemon = daemon;
    settings.highest = highest;
    settings.to_journal = stderr_is_journal();
}

static void write_to_stderr(enum log_level level, const char *sentence)
{
    static const char *const words[] = {[LOG_LEVEL_ERROR] = "error: ", [LOG_LEVEL_WARNING] = "warning: ",
                                        [LOG_LEVEL_NOTICE] = "", [LOG_LEVEL_INFO] = "", [LOG_LEVEL_DEBUG] = "debug: "};
    struct timespec now;
    struct tm utc;
    char stamp[32], line[LOG_SENTENCE_MAX + 160];

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
    int length = snprintf(line, sizeof(line), "%s.%06ldZ %s: %s%s\n", stamp, now.tv_nsec / 1000, settings.daemon,
                          words[level], sentence);
    if (length >= (int)sizeof(line))
        length = (int)sizeof(line) - 1;
    /* One write per line keeps the lines of several threads whole. A full disk or pipe must not stop a daemon. */
    ssize_t ignored = write(STDERR_FILENO, line, (size_t)length);
    (void)ignored;
}

void log_write(enum log_level level, const char *format, ...)
{
    char sentence[LOG_SENTENCE_MAX];
    va_list arguments;

    if (level < LOG_LEVEL_ERROR || level > LOG_LEVEL_DEBUG || level > settings.highest)
        return;
    va_start(arguments, format);
    vsnprintf(sentence, sizeof(sentence), format, arguments);
    va_end(arguments);
    if (!settings.to_journal ||
        sd_journal_send("MESSAGE=%s", sentence, "PRIORITY=%d", (int)level, "SYSLOG_IDENTIFIER=%s", settings.daemon,
                        NULL) < 0)
        write_to_stderr(level, sentence);
}

void log_write_fields(enum log_level level, const char *sentence, const char *const *fields, unsigned count)
{
    char message[LOG_SENTENCE_MAX], priority[16], identifier[64];
    struct iovec parts[LOG_FIELDS_MAX + 3];

    if (level < LOG_LEVEL_ERROR || level > settings.highest)
        return;
    snprintf(message, sizeof(message), "MESSAGE=%s", sentence);
    snprintf(priority, sizeof(priority), "PRIORITY=%d", (int)level);
    snprintf(identifier, sizeof(identifier), "SYSLOG_IDENTIFIER=%s", settings.daemon);
    const char *const front[] = {message, priority, identifier};
    for (unsigned i = 0; i < 3; i++)
        parts[i] = (struct iovec){(void *)front[i], strlen(front[i])};
    count = count < LOG_FIELDS_MAX ? count : LOG_FIELDS_MAX;
    for (unsigned i = 0; i < count; i++)
        parts[3 + i] = (struct iovec){(void *)fields[i], strlen(fields[i])};
    if (!settings.to_journal || sd_journal_sendv(parts, (int)count + 3) < 0)
        write_to_stderr(level, sentence);
}
