// Tlogcheck verifies an exported ledger with Go's own transparency-log packages, which share no
// code with Tidegate: the checkpoint's signature, every tile against its root, every entry against
// its leaf, and inclusion and consistency proofs made from the tiles.
//
//	go run . DIRECTORY VERIFIER-KEY
//
// It prints one line and exits 0 when all of it holds; otherwise it says what does not and exits 1.
package main

import (
	"bytes"
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
		data, err := d.read(name(tile))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

// name is where C2SP tlog-tiles puts a tile: without the height that Go writes, and with
// "entries" for what Go calls "data".
func name(tile tlog.Tile) string {
	path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
	return strings.Replace(path, "tile/data/", "tile/entries/", 1)
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
	if err := checkEntries(dir, tree); err != nil {
		return "", err
	}
	if err := checkProofs(tree, tlog.TileHashReader(tree, dir)); err != nil {
		return "", err
	}
	return fmt.Sprintf("ok %s %d %x", verifier.Name(), size, root), nil
}

// checkEntries builds the whole tree again from the entry bundles and compares its root with the
// checkpoint's and its tiles with the exported ones, byte for byte.
func checkEntries(dir directory, tree tlog.Tree) error {
	var stored []tlog.Hash
	hashes := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		found := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			found[i] = stored[index]
		}
		return found, nil
	})
	for first := int64(0); first < tree.N; first += 256 {
		width := min(tree.N-first, 256)
		tile := tlog.Tile{H: height, L: -1, N: first / 256, W: int(width)}
		bundle, err := dir.read(name(tile))
		if err != nil {
			return err
		}
		for index := first; index < first+width; index++ {
			if len(bundle) < 2 || len(bundle)-2 < int(binary.BigEndian.Uint16(bundle)) {
				return fmt.Errorf("entry %d: %s is cut short", index, name(tile))
			}
			end := 2 + int(binary.BigEndian.Uint16(bundle))
			added, err := tlog.StoredHashes(index, bundle[2:end], hashes)
			if err != nil {
				return err
			}
			stored = append(stored, added...)
			bundle = bundle[end:]
		}
		if len(bundle) != 0 {
			return fmt.Errorf("%s: %d bytes too many", name(tile), len(bundle))
		}
	}
	for _, tile := range tlog.NewTiles(height, 0, tree.N) {
		expected, err := tlog.ReadTileData(tile, hashes)
		if err != nil {
			return err
		}
		read, err := dir.ReadTiles([]tlog.Tile{tile})
		if err != nil {
			return err
		}
		if !bytes.Equal(expected, read[0]) {
			return fmt.Errorf("%s: not the hashes of the entries", name(tile))
		}
	}
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return fmt.Errorf("the entries do not have the root that the checkpoint signs")
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
