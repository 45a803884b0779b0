/* ch-image's storage, as far as running an image by its name goes: names, and the layers behind them. */
#ifndef CHLAUNCH_STORE_H
#define CHLAUNCH_STORE_H

#include "container.h"
#include "failure.h"

/* Directory of storage: --storage, else $CH_IMAGE_STORAGE, else /var/tmp/$USER.ch. */
void store_path(const struct container *container, char *path, size_t size);

/* Descriptor of the image's directory in storage (with *store, storage itself); -1 where there is none.
 * Storage that nobody named and that isn't ours is none. */
int store_find(const struct container *container, int *store);

/* The image's layers as an overlay's lowerdir wants them, relative to storage, the top one first. */
int store_layers(int image, const char *shown, char *text, size_t size, struct failure *failure);

#endif
