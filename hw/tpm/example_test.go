package tpm_test

import (
	"bytes"
	"fmt"
	"log"

	"gprovision/hw/tpm"
)

// Clear the TPM of this machine, and believe that when another seed is seen. If it refuses, the firmware is asked to do it.
func ExampleFind() {
	t, err := tpm.Find("/sys", "/dev")
	if err != nil {
		log.Fatal(err)
	}
	if t == nil {
		fmt.Println("no TPM")
		return
	}
	before, err := t.Look()
	if err != nil {
		log.Fatal(err)
	}
	if err := t.Clear(); err != nil {
		says, err := t.Request()
		fmt.Println("at the next start:", says, err)
		return
	}
	after, err := t.Look()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("cleared:", len(after.Key) > 0 && !bytes.Equal(before.Key, after.Key))
}
