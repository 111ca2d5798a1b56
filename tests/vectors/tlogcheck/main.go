// Tlogcheck verifies an exported ledger with Go's own transparency-log packages, which share no
// code with Tidegate: the checkpoint's signature, every tile against its root, every entry against
// its leaf, and inclusion and consistency proofs made from the tiles.
//
//	go run . DIRECTORY VERIFIER-KEY
//
// It prints one line and exits 0 when all of it holds; otherwise it says what does not and exits 1.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Tiles are 256 hashes wide (C2SP tlog-tiles).
const height = 8

// directory reads tiles from files.
type directory string

func (d directory) Height() int                         { return height }
func (d directory) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (d directory) read(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(d), name))
}
func (d directory) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		// Go writes tile/8/L/N; C2SP leaves the height out.
		name := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := d.read(name)
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func check(dir directory, vkey string) (string, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return "", fmt.Errorf("verifier key: %w", err)
	}
	text, err := dir.read("checkpoint")
	if err != nil {
		return "", err
	}
	opened, err := note.Open(text, note.VerifierList(verifier))
	if err != nil {
		return "", fmt.Errorf("checkpoint: %w", err)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return "", fmt.Errorf("checkpoint: not of origin %s", verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return "", fmt.Errorf("checkpoint: size: %w", err)
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return "", fmt.Errorf("checkpoint: root is not %d bytes of base64", tlog.HashSize)
	}
	tree := tlog.Tree{N: size, Hash: tlog.Hash(root)}
	// The reader checks each tile that it fetches against the tree's root.
	hashes := tlog.TileHashReader(tree, dir)
	if err := checkEntries(dir, tree, hashes); err != nil {
		return "", err
	}
	if err := checkProofs(tree, hashes); err != nil {
		return "", err
	}
	return fmt.Sprintf("ok %s %d %x", verifier.Name(), size, root), nil
}

func checkEntries(dir directory, tree tlog.Tree, hashes tlog.HashReader) error {
	for first := int64(0); first < tree.N; first += 256 {
		width := min(tree.N-first, 256)
		tile := tlog.Tile{H: height, L: -1, N: first / 256, W: int(width)}
		// Go calls a tile of data tile/8/data/N.
		name := strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1)
		bundle, err := dir.read(name)
		if err != nil {
			return err
		}
		for index := first; index < first+width; index++ {
			if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("entry %d: %s is cut short", index, name)
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			entry := bundle[2:end]
			bundle = bundle[end:]
			leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			if err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
			if tlog.RecordHash(entry) != leaf[0] {
				return fmt.Errorf("entry %d: its bytes do not have its leaf hash", index)
			}
		}
		if len(bundle) != 0 {
			return fmt.Errorf("%s: %d bytes too many", name, len(bundle))
		}
	}
	return nil
}

func checkProofs(tree tlog.Tree, hashes tlog.HashReader) error {
	for index := int64(0); index < tree.N; index += max(tree.N/16, 1) {
		leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
		if err != nil {
			return err
		}
		proof, err := tlog.ProveRecord(tree.N, index, hashes)
		if err != nil {
			return fmt.Errorf("inclusion of %d: %w", index, err)
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf[0]); err != nil {
			return fmt.Errorf("inclusion of %d: %w", index, err)
		}
		old, err := tlog.TreeHash(index+1, hashes)
		if err != nil {
			return err
		}
		grown, err := tlog.ProveTree(tree.N, index+1, hashes)
		if err != nil {
			return fmt.Errorf("consistency from %d: %w", index+1, err)
		}
		if err := tlog.CheckTree(grown, tree.N, tree.Hash, index+1, old); err != nil {
			return fmt.Errorf("consistency from %d: %w", index+1, err)
		}
	}
	return nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: tlogcheck DIRECTORY VERIFIER-KEY")
		os.Exit(2)
	}
	line, err := check(directory(os.Args[1]), os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, "tlogcheck:", err)
		os.Exit(1)
	}
	fmt.Println(line)
}
