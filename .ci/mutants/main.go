// Command mutants breaks the code on purpose, one small change at a time, and tells which changes no unit test notices.
//
//	mutants -root DIR
//
// The changes are made by hand, in hand.txt: each is a way to lose data, and the named test must fail. Everything happens in a copy of
// the tree. Changed code that handles disks must not run as root: as root, the tests run as nobody.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context) error {
	root := flag.String("root", "../..", "the root of the module")
	flag.Parse()
	b, err := newBench(*root)
	if err != nil {
		return err
	}
	defer b.close()
	return b.tryHand(ctx, filepath.Join(*root, ".ci/mutants/hand.txt"))
}
