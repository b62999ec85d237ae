/* The disk of a power cut: a file system in memory (libfuse3) that forgets at the cut everything that was not synced. power_disk.py
 * compiles, mounts and commands it, and says what it promises.
 *
 * Usage: power_disk MOUNTPOINT SOURCE journal|strict SYNC_MICROSECONDS. Commands come on standard input, one a line, answers go to
 * standard output; the end of the input ends the file system.
 *
 * One thread serves requests and commands in turn, so that a cut falls between two requests and nothing needs a lock. After a cut the
 * kernel's caches know too much: it gets a new mount.
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include "power_disk_image.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

enum { FOREVER = 86400 };

typedef struct { fuse_req_t request; node *node; int64_t due; } waiting;

static waiting *syncs; static size_t waits, syncs_room; /* under way: what they promise holds once they are answered */
static int64_t sync_us;
static bool off; /* the power is cut */

static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static node *to_node(fuse_ino_t number) { return number == FUSE_ROOT_ID ? root : (node *)number; }

/* -- requests --------------------------------------------------------------------------------------------------------------------- */
static struct stat attributes(const node *of) {
    struct stat stat = of->stat;
    stat.st_size = S_ISDIR(stat.st_mode) ? PAGE : of->size;
    stat.st_blksize = PAGE, stat.st_blocks = (stat.st_size + SECTOR - 1) / SECTOR;
    return stat;
}

static struct fuse_entry_param known(node *to) {
    to->lookups++;
    return (struct fuse_entry_param){.ino = (fuse_ino_t)to, .attr = attributes(to), .attr_timeout = FOREVER, .entry_timeout = FOREVER};
}

static void reply_entry(fuse_req_t request, node *to) {
    struct fuse_entry_param param = known(to);
    fuse_reply_entry(request, &param);
}

static void on_init(void *, struct fuse_conn_info *connection) { /* nobody else changes the data, so no cache is ever stale */
    connection->want &= ~(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE);
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *called) {
    entry *found = find(&to_node(parent)->live, called);
    if (found) { reply_entry(request, found->node); return; }
    struct fuse_entry_param nothing = {.entry_timeout = FOREVER};
    fuse_reply_entry(request, &nothing);
}

static void on_forget(fuse_req_t request, fuse_ino_t number, uint64_t count) {
    node *known = to_node(number);
    if (!(known->lookups -= count) && !known->refs) release(known);
    fuse_reply_none(request);
}

static void on_getattr(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *) {
    struct stat stat = attributes(to_node(number));
    fuse_reply_attr(request, &stat, FOREVER);
}

static void on_setattr(fuse_req_t request, fuse_ino_t number, struct stat *to, int what, struct fuse_file_info *file) {
    node *of = to_node(number);
    if (what & FUSE_SET_ATTR_SIZE && !resize(of, to->st_size)) { fuse_reply_err(request, ENOSPC); return; }
    if (what & FUSE_SET_ATTR_MODE) of->stat.st_mode = (of->stat.st_mode & S_IFMT) | (to->st_mode & ~S_IFMT);
    if (what & FUSE_SET_ATTR_UID) of->stat.st_uid = to->st_uid;
    if (what & FUSE_SET_ATTR_GID) of->stat.st_gid = to->st_gid;
    clock_gettime(CLOCK_REALTIME, &of->stat.st_ctim);
    if (what & FUSE_SET_ATTR_ATIME) of->stat.st_atim = what & FUSE_SET_ATTR_ATIME_NOW ? of->stat.st_ctim : to->st_atim;
    if (what & FUSE_SET_ATTR_MTIME) of->stat.st_mtim = what & FUSE_SET_ATTR_MTIME_NOW ? of->stat.st_ctim : to->st_mtim;
    on_getattr(request, number, file);
}

static node *made(fuse_req_t request, fuse_ino_t parent, const char *called, mode_t mode, dev_t device) {
    node *new = create(mode, device, fuse_req_ctx(request)->uid, fuse_req_ctx(request)->gid);
    if (S_ISDIR(mode)) new->stat.st_nlink = 1; /* its own "." */
    name(to_node(parent), called, new, true);
    return new;
}

static void on_mknod(fuse_req_t request, fuse_ino_t parent, const char *called, mode_t mode, dev_t device) {
    reply_entry(request, made(request, parent, called, mode, device));
}

static void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char *called, mode_t mode) {
    reply_entry(request, made(request, parent, called, S_IFDIR | mode, 0));
}

static void on_symlink(fuse_req_t request, const char *target, fuse_ino_t parent, const char *called) {
    node *new = made(request, parent, called, S_IFLNK | 0777, 0);
    if (make_room(new, strlen(target) + 1)) strcpy(new->data, target), new->size = new->durable_size = strlen(target);
    reply_entry(request, new);
}

static void on_readlink(fuse_req_t request, fuse_ino_t number) { fuse_reply_readlink(request, to_node(number)->data); }

static void on_link(fuse_req_t request, fuse_ino_t number, fuse_ino_t parent, const char *called) {
    name(to_node(parent), called, to_node(number), true);
    reply_entry(request, to_node(number));
}

static void on_remove(fuse_req_t request, fuse_ino_t parent, const char *called) {
    entry *found = find(&to_node(parent)->live, called);
    int error = !found ? ENOENT : found->node->live.count ? ENOTEMPTY : 0;
    if (!error) name(to_node(parent), called, NULL, true);
    fuse_reply_err(request, error);
}

static void on_rename(fuse_req_t request, fuse_ino_t from, const char *called, fuse_ino_t to, const char *anew, unsigned flags) {
    entry *found = find(&to_node(from)->live, called), *there = find(&to_node(to)->live, anew);
    int error = !found ? ENOENT : flags & ~RENAME_NOREPLACE ? EINVAL : there && flags ? EEXIST : there && there->node->live.count ? ENOTEMPTY : 0;
    if (!error && (!there || there->node != found->node)) {
        node *moved = found->node;
        name(to_node(to), anew, moved, true);
        name(to_node(from), called, NULL, false);
    }
    fuse_reply_err(request, error);
}

static void on_open(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file) {
    if (file->flags & O_TRUNC) resize(to_node(number), 0);
    file->keep_cache = 1;
    fuse_reply_open(request, file);
}

static void on_create(fuse_req_t request, fuse_ino_t parent, const char *called, mode_t mode, struct fuse_file_info *file) {
    struct fuse_entry_param param = known(made(request, parent, called, S_IFREG | mode, 0));
    file->keep_cache = 1;
    fuse_reply_create(request, &param, file);
}

static void on_read(fuse_req_t request, fuse_ino_t number, size_t size, off_t at, struct fuse_file_info *) {
    node *file = to_node(number);
    size_t left = (size_t)at < file->size ? file->size - at : 0;
    fuse_reply_buf(request, left ? file->data + at : NULL, size < left ? size : left);
}

static void on_write(fuse_req_t request, fuse_ino_t number, const char *data, size_t size, off_t at, struct fuse_file_info *) {
    node *file = to_node(number);
    size_t end = at + size;
    if (!make_room(file, end)) { fuse_reply_err(request, ENOSPC); return; }
    keep(file, at, end);
    memcpy(file->data + at, data, size);
    if (end > file->size) file->size = end;
    clock_gettime(CLOCK_REALTIME, &file->stat.st_mtim);
    fuse_reply_write(request, size);
}

static void on_fallocate(fuse_req_t request, fuse_ino_t number, int mode, off_t at, off_t size, struct fuse_file_info *) {
    node *file = to_node(number);
    int error = mode & ~FALLOC_FL_KEEP_SIZE ? EOPNOTSUPP : 0;
    if (!mode && (size_t)(at + size) > file->size && !resize(file, at + size)) error = ENOSPC;
    fuse_reply_err(request, error);
}

static void on_fsync(fuse_req_t request, fuse_ino_t number, int, struct fuse_file_info *) {
    syncs = more(syncs, &syncs_room, waits + 1, sizeof *syncs);
    syncs[waits++] = (waiting){request, ref(to_node(number)), now_us() + sync_us};
}

static void on_opendir(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file) { /* a listing of this moment */
    entries *in = &to_node(number)->live, *listing = calloc(1, sizeof *listing);
    listing->all = more(NULL, &listing->room, in->count + 1, sizeof *listing->all);
    for (; listing->count < in->count; listing->count++)
        listing->all[listing->count] = (entry){strdup(in->all[listing->count].name), ref(in->all[listing->count].node)};
    file->fh = (uint64_t)listing;
    fuse_reply_open(request, file);
}

static void on_readdir(fuse_req_t request, fuse_ino_t, size_t size, off_t at, struct fuse_file_info *file) {
    const entries *listing = (entries *)file->fh;
    char buffer[1 << 16];
    size_t used = 0, room = size < sizeof buffer ? size : sizeof buffer;
    for (; (size_t)at < listing->count; at++) {
        size_t length = fuse_add_direntry(request, buffer + used, room - used, listing->all[at].name, &listing->all[at].node->stat, at + 1);
        if (length > room - used) break;
        used += length;
    }
    fuse_reply_buf(request, buffer, used);
}

static void on_releasedir(fuse_req_t request, fuse_ino_t, struct fuse_file_info *file) {
    entries *listing = (entries *)file->fh;
    clear(listing);
    free(listing->all), free(listing);
    fuse_reply_err(request, 0);
}

static void on_statfs(fuse_req_t request, fuse_ino_t) {
    struct statvfs much = {.f_bsize = PAGE, .f_frsize = PAGE, .f_blocks = 1 << 24, .f_bfree = 1 << 23, .f_bavail = 1 << 23, .f_namemax = 255};
    fuse_reply_statfs(request, &much);
}

static const struct fuse_lowlevel_ops operations = {
    .init = on_init, .lookup = on_lookup, .forget = on_forget, .getattr = on_getattr, .setattr = on_setattr, .readlink = on_readlink,
    .mknod = on_mknod, .mkdir = on_mkdir, .unlink = on_remove, .rmdir = on_remove, .symlink = on_symlink, .rename = on_rename,
    .link = on_link, .open = on_open, .create = on_create, .read = on_read, .write = on_write, .fsync = on_fsync, .fallocate = on_fallocate,
    .opendir = on_opendir, .readdir = on_readdir, .releasedir = on_releasedir, .fsyncdir = on_fsync, .statfs = on_statfs,
};

/* -- the loop --------------------------------------------------------------------------------------------------------------------- */
static struct fuse_session *mounted(char *program, const char *at, const char *source) {
    char options[512];
    snprintf(options, sizeof options, "allow_other,default_permissions,subtype=power_disk,fsname=%s", source);
    struct fuse_args arguments = FUSE_ARGS_INIT(0, NULL);
    if (fuse_opt_add_arg(&arguments, program) || fuse_opt_add_arg(&arguments, "-o") || fuse_opt_add_arg(&arguments, options)) exit(1);
    struct fuse_session *session = fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    fuse_opt_free_args(&arguments);
    if (!session || fuse_session_mount(session, at)) exit(1);
    fcntl(fuse_session_fd(session), F_SETFL, O_NONBLOCK);
    return session;
}

static void finish_syncs(int64_t until, int error) {
    size_t left = 0;
    for (size_t i = 0; i < waits; i++) {
        if (syncs[i].due > until) { syncs[left++] = syncs[i]; continue; }
        if (!error) synced(syncs[i].node);
        fuse_reply_err(syncs[i].request, error);
        unref(syncs[i].node);
    }
    waits = left;
}

static void refuse(int device, const struct fuse_in_header *request) { /* without power */
    struct fuse_out_header answer = {sizeof answer, -EIO, request->unique};
    if (request->opcode != FUSE_FORGET && request->opcode != FUSE_BATCH_FORGET && request->opcode != FUSE_INTERRUPT)
        if (write(device, &answer, sizeof answer) < 0) return; /* whoever asked was killed */
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    strict = !strcmp(arguments[3], "strict"), sync_us = atoll(arguments[4]);
    root = ref(create(S_IFDIR | 0755, 0, 0, 0));
    root->stat.st_nlink = 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct fuse_session *session = mounted(arguments[0], arguments[1], arguments[2]);
    struct fuse_buf buffer = {0};
    char line[256];
    printf("ready\n");
    for (;;) {
        int64_t wait = waits ? syncs[0].due - now_us() : 1000000;
        struct timespec patience = {wait > 0 ? wait / 1000000 : 0, wait > 0 ? wait % 1000000 * 1000 : 0};
        struct pollfd polled[] = {{fuse_session_fd(session), POLLIN, 0}, {0, POLLIN, 0}};
        if (ppoll(polled, 2, &patience, NULL) < 0 && errno != EINTR) break;
        finish_syncs(now_us(), 0);
        if (polled[1].revents) { /* one command at a time: the next one waits for this one's answer */
            ssize_t length = read(0, line, sizeof line - 1);
            if (length <= 0) break;
            line[length] = 0;
            unsigned percent = 0;
            if (!strcmp(line, "sync\n")) {
                commit(records, NULL);
                for (node *each = nodes; each; each = each->next) settle(each);
                printf("synced\n");
            } else if (!strcmp(line, "cut\n")) {
                finish_syncs(INT64_MAX, EIO);
                off = true;
                printf("cut\n");
            } else if (sscanf(line, "back %lu %u\n", &random_state, &percent) == 2) {
                fuse_session_unmount(session), fuse_session_destroy(session);
                revert(percent);
                off = false;
                session = mounted(arguments[0], arguments[1], arguments[2]);
                printf("back %zu %zu %zu %zu %zu %zu\n", figures.files, figures.pages, figures.survived, figures.torn, figures.names, figures.names_survived);
            }
            continue;
        }
        if (!polled[0].revents) continue;
        int length = fuse_session_receive_buf(session, &buffer);
        if (length == 0 || (length < 0 && length != -EINTR && length != -EAGAIN && length != -ENOENT)) break; /* unmounted by somebody */
        if (length < 0) continue;
        if (off) refuse(fuse_session_fd(session), buffer.mem);
        else fuse_session_process_buf(session, &buffer);
    }
    fuse_session_unmount(session), fuse_session_destroy(session);
    return 0;
}
