/* What is on the disk of power_disk.c, now and after a power cut: nodes, names and content.
 *
 * A file is what it is now, and the earlier content ("before") of each page that changed since the last sync. A name is changed in
 * `live` and in the journal; what a sync commits from there is applied to `durable`.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

enum { PAGE = 4096, SECTOR = 512 };

typedef struct node node;
typedef struct { char *name; node *node; } entry;
typedef struct { entry *all; size_t count, room; } entries;
struct node {
    struct stat stat; /* times and modes are taken for durable at once */
    long refs, lookups; /* by entries, records and syncs under way; by the kernel */
    char *data; /* of a file or a symbolic link; zeros behind the size */
    size_t size, durable_size, room;
    char **before; /* by page: its durable content, NULL where that is the present one */
    size_t *changed, changes, changes_room, pages; /* pages that have a `before`; their number; room there and in `before` */
    bool shrunk; /* since the last sync */
    entries live, durable; /* of a directory */
    node *next, **link;
};
typedef struct { node *dir, *node; char *name; bool begins; } record; /* node NULL: the name goes. begins: of a new transaction */

static node *root, *nodes;
static record *journal; static size_t records, journal_room;
static bool strict;
static uint64_t random_state;
static ino_t numbers;
static char zeros[PAGE];

static void *more(void *memory, size_t *room, size_t wanted, size_t item) {
    if (wanted <= *room) return memory;
    size_t grown = wanted > 2 * *room ? wanted : 2 * *room;
    if (!(memory = realloc(memory, grown * item))) abort();
    memset((char *)memory + *room * item, 0, (grown - *room) * item);
    *room = grown;
    return memory;
}

static unsigned roll(unsigned below) { /* splitmix64 */
    uint64_t z = random_state += 0x9E3779B97F4A7C15ULL;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ULL, z = (z ^ z >> 27) * 0x94D049BB133111EBULL;
    return (z ^ z >> 31) % below;
}

/* -- nodes and names -------------------------------------------------------------------------------------------------------------- */
static node *create(mode_t mode, dev_t device, uid_t user, gid_t group) {
    node *made = calloc(1, sizeof *made);
    if (!made) abort();
    made->stat.st_ino = ++numbers, made->stat.st_mode = mode, made->stat.st_rdev = device;
    made->stat.st_uid = user, made->stat.st_gid = group;
    clock_gettime(CLOCK_REALTIME, &made->stat.st_mtim);
    made->stat.st_atim = made->stat.st_ctim = made->stat.st_mtim;
    if ((made->next = nodes)) nodes->link = &made->next;
    made->link = &nodes, nodes = made;
    return made;
}

static void release(node *unused);
static void unref(node *less) { if (less && !--less->refs && !less->lookups) release(less); }
static node *ref(node *one) { if (one) one->refs++; return one; }

static entry *find(const entries *in, const char *name) {
    for (size_t i = 0; i < in->count; i++) if (!strcmp(in->all[i].name, name)) return &in->all[i];
    return NULL;
}

static void set(entries *in, const char *name, node *to) {
    entry *found = find(in, name);
    ref(to);
    if (found) {
        node *former = found->node;
        if (to) found->node = to;
        else free(found->name), *found = in->all[--in->count];
        unref(former);
    } else if (to) {
        in->all = more(in->all, &in->room, in->count + 1, sizeof *in->all);
        in->all[in->count++] = (entry){strdup(name), to};
    }
}

static void clear(entries *all) {
    while (all->count) { free(all->all[--all->count].name); unref(all->all[all->count].node); }
}

static void settle(node *file) { /* its present content is the durable one */
    for (size_t i = 0; i < file->changes; i++) {
        char **before = &file->before[file->changed[i]];
        if (*before != zeros) free(*before);
        *before = NULL;
    }
    file->changes = 0, file->durable_size = file->size, file->shrunk = false;
}

static void release(node *unused) {
    if ((*unused->link = unused->next)) unused->next->link = unused->link;
    clear(&unused->live), clear(&unused->durable), settle(unused);
    if (unused->data) munmap(unused->data, unused->room);
    free(unused->live.all), free(unused->durable.all), free(unused->before), free(unused->changed), free(unused);
}

static void name(node *dir, const char *called, node *to, bool begins) {
    journal = more(journal, &journal_room, records + 1, sizeof *journal);
    journal[records++] = (record){ref(dir), ref(to), strdup(called), begins};
    entry *former = find(&dir->live, called);
    if (former) former->node->stat.st_nlink--;
    if (to) to->stat.st_nlink++;
    set(&dir->live, called, to);
    clock_gettime(CLOCK_REALTIME, &dir->stat.st_mtim);
    dir->stat.st_ctim = dir->stat.st_mtim;
}

static void commit(size_t count, const node *only) { /* of the first so many records those of one folder, or all (NULL) */
    size_t left = 0;
    while (!only && count && count < records && !journal[count].begins) count++; /* the rest of a transaction */
    for (size_t i = 0; i < records; i++) {
        record *each = &journal[i];
        if (i >= count || (only && each->dir != only)) { journal[left++] = *each; continue; }
        set(&each->dir->durable, each->name, each->node);
        unref(each->dir), unref(each->node), free(each->name);
    }
    records = left;
}

static void synced(node *what) {
    if (!strict || S_ISDIR(what->stat.st_mode)) commit(records, strict ? what : NULL);
    settle(what);
}

/* -- content ---------------------------------------------------------------------------------------------------------------------- */
static void keep(node *file, size_t from, size_t to) { /* what is durable of the pages that are about to change */
    for (size_t page = from / PAGE; page * PAGE < to; page++) {
        file->before = more(file->before, &file->pages, page + 1, sizeof *file->before);
        if (file->before[page]) continue;
        char *copy = zeros;
        if (page * PAGE < file->durable_size) {
            if (!(copy = malloc(PAGE))) abort();
            memcpy(copy, file->data + page * PAGE, PAGE);
        }
        file->before[page] = copy;
        file->changed = more(file->changed, &file->changes_room, file->changes + 1, sizeof *file->changed);
        file->changed[file->changes++] = page;
    }
}

static void blank(node *file, size_t from, size_t to) {
    size_t whole = (from + PAGE - 1) / PAGE * PAGE;
    memset(file->data + from, 0, (whole < to ? whole : to) - from);
    if (whole < to) madvise(file->data + whole, to - whole, MADV_DONTNEED);
}

static bool make_room(node *file, size_t size) {
    if (size <= file->room) return true;
    size_t room = ((size > 2 * file->room ? size : 2 * file->room) + PAGE - 1) / PAGE * PAGE;
    void *data = file->data ? mremap(file->data, file->room, room, MREMAP_MAYMOVE)
                            : mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) return false;
    file->data = data, file->room = room;
    return true;
}

static bool resize(node *file, size_t size) {
    if (!make_room(file, size)) return false;
    if (size < file->size) {
        keep(file, size, file->size);
        blank(file, size, file->size);
        file->shrunk = true;
    }
    file->size = size;
    clock_gettime(CLOCK_REALTIME, &file->stat.st_mtim);
    return true;
}

/* -- the power cut ---------------------------------------------------------------------------------------------------------------- */
static struct { size_t files, pages, survived, torn, names, names_survived; } figures;

static void forget_changes(node *file, unsigned percent) {
    if (!file->changes && file->size == file->durable_size) return;
    figures.files++, figures.pages += file->changes;
    size_t least = file->size < file->durable_size ? file->size : file->durable_size, most = file->size + file->durable_size - least;
    enum { ALL = 1, SOME = 2 } kept = roll(100) < percent ? (file->shrunk ? ALL : 1 + roll(2)) : 0;
    size_t size = kept == ALL ? file->size : kept == SOME ? least + roll(most - least + 1) : file->durable_size;
    for (size_t i = 0; i < file->changes; i++) {
        size_t at = file->changed[i] * PAGE;
        unsigned fate = kept == ALL ? 1 : kept == SOME ? roll(3) : 0; /* 0 gone, 1 survived, 2 torn */
        figures.survived += fate == 1, figures.torn += fate == 2;
        for (size_t part = 0; part < PAGE; part += SECTOR)
            if (!fate || (fate == 2 && roll(2))) memcpy(file->data + at + part, file->before[at / PAGE] + part, SECTOR);
    }
    if (most > size) blank(file, size, most);
    file->size = size;
    settle(file);
}

static void revert(unsigned percent) {
    memset(&figures, 0, sizeof figures);
    figures.names = records;
    if (roll(100) < percent) commit(roll(records + 1), NULL);
    figures.names_survived = figures.names - records;
    while (records) { record *last = &journal[--records]; unref(last->dir), unref(last->node), free(last->name); }
    size_t count = 0, room = 0;
    node **all = NULL;
    for (node *each = nodes; each; each = each->next) {
        all = more(all, &room, count + 1, sizeof *all);
        all[count++] = ref(each);
        each->lookups = 0, each->stat.st_nlink = S_ISDIR(each->stat.st_mode);
        if (S_ISREG(each->stat.st_mode)) forget_changes(each, percent);
    }
    for (size_t i = 0; i < count; i++) {
        clear(&all[i]->live);
        for (size_t k = 0; k < all[i]->durable.count; k++) {
            entry *each = &all[i]->durable.all[k];
            set(&all[i]->live, each->name, each->node);
            each->node->stat.st_nlink++;
        }
    }
    while (count) unref(all[--count]);
    free(all);
}
