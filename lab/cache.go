package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cache keeps files that take long to make, under names made from all that goes into them: root filesystems. Several
// processes may use one at the same time.
type Cache struct{ dir string }

// OpenCache opens the cache in dir, which is made if it is missing. Empty: gprovision in the user's cache directory
// ($XDG_CACHE_HOME, or ~/.cache).
func OpenCache(dir string) (*Cache, error) {
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("find cache directory: %w", err)
		}
		dir = filepath.Join(base, "gprovision")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cache: %w", err)
	}
	return &Cache{dir}, nil
}

// Key hashes all that goes into a file.
func Key(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d %s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))[:24]
}

// Path is where the file called name with that key is, or will be.
func (c *Cache) Path(name, key string) string { return filepath.Join(c.dir, key+"-"+name) }

// Get returns the path of the file called name with that key. If it is not there, make makes it at the path it is given, and
// it appears when it is complete. A second caller waits for the first.
func (c *Cache) Get(ctx context.Context, name, key string, make func(path string) error) (string, error) {
	path := c.Path(name, key)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	unlock, err := lock(ctx, path+".lock")
	if err != nil {
		return "", err
	}
	defer unlock()
	return path, c.fill(name, path, make)
}

// fill makes what is to be at path unless it is there. The caller has its lock.
func (c *Cache) fill(name, path string, make func(path string) error) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	tmp := path + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("clear cache: %w", err)
	}
	if err := make(tmp); err != nil {
		return errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("put %s into cache: %w", name, err)
	}
	return nil
}

// Copy copies the directory called name with that key, which is made as Get does, to the path to. Of the directories with the name only
// those stay that were used last, as many as keep says: each is large, and one that has another key is hardly wanted again.
func (c *Cache) Copy(ctx context.Context, name, key, to string, keep int, make func(path string) error) error {
	path := c.Path(name, key)
	unlock, err := lock(ctx, path+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if err := c.fill(name, path, make); err != nil {
		return err
	}
	if err := run(ctx, slog.New(slog.DiscardHandler), "coreutils", "cp", "-a", "--sparse=always", path, to); err != nil {
		return fmt.Errorf("copy %s from cache: %w", name, err)
	}
	now := time.Now()
	if err := os.Chtimes(path+".lock", now, now); err != nil { // the time of its last use
		return fmt.Errorf("copy %s from cache: %w", name, err)
	}
	return c.trim(name, path, keep)
}

// trim removes the directories with a name that were not used for the longest time, until as many are left as keep says. It leaves present,
// whose lock the caller has, and those that another process uses.
func (c *Cache) trim(name, present string, keep int) error {
	locks, err := filepath.Glob(c.Path(name, "*") + ".lock")
	if err != nil {
		return fmt.Errorf("trim cache: %w", err)
	}
	used := map[string]time.Time{}
	for _, l := range locks {
		if st, err := os.Stat(l); err == nil {
			used[l] = st.ModTime()
		}
	}
	slices.SortFunc(locks, func(a, b string) int { return used[b].Compare(used[a]) })
	for _, l := range locks[min(keep, len(locks)):] {
		path := strings.TrimSuffix(l, ".lock")
		if path == present {
			continue
		}
		if err := removeUnused(path, l); err != nil {
			return fmt.Errorf("trim cache: %w", err)
		}
	}
	return nil
}

// removeUnused removes what is at path and its lock, unless another process has the lock.
func removeUnused(path, lock string) error {
	f, err := os.OpenFile(lock, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil
	}
	return errors.Join(os.RemoveAll(path), os.RemoveAll(path+".new"), os.Remove(lock))
}

// lock takes a lock that ends with the process.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	got := make(chan error, 1)
	go func() { got <- flock(f) }()
	select {
	case err := <-got:
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return func() { _ = f.Close() }, nil
	case <-ctx.Done():
		go func() {
			<-got
			_ = f.Close()
		}()
		return nil, fmt.Errorf("wait for another process at %s: %w", path, context.Cause(ctx))
	}
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}
